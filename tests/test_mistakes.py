"""Mistakes that people make, in Python and on the command line: one clear line each.

The line says what was wrong and what is accepted. Nothing is written, and on the
command line the exit code is 1, or 2 where the command line itself cannot be read.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import Any

import flax.nnx as nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

import invjax
from invjax import images
from invjax.commands import binary, invert, sample
from invjax.metrics import errors
from tests.conftest import micro_representation
from tests.runs import made_up

SHAPE = (16, 16, 3)
KEY = jax.random.key(0)
IMAGE = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
BYTES: Any = np.uint8(255 * IMAGE)


def phi(image):
    """Sixteen numbers by rows and columns, and by channel: [4, 4, 3]."""
    return jnp.sin(3 * image[::4, ::4])


CODE = np.asarray(phi(IMAGE))


def invert_it(code: Any = CODE, function: Any = phi, key: Any = KEY, **settings: Any):
    given: Any = {"image_shape": SHAPE, "num_steps": 2} | settings
    return invjax.invert(key, code, function, **given)


def invert_them(keys: Any, codes: Any, **settings: Any):
    given: Any = {"image_shape": SHAPE, "num_steps": 2} | settings
    return invjax.invert_batch(keys, codes, phi, **given)


class Trained(nnx.Module):
    """A network with batch normalisation, in training mode."""

    def __init__(self) -> None:
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))

    def __call__(self, image):
        return self.norm(image[None])[0].mean((0, 1))


def two_layers(image):
    return {"shallow": phi(image), "deep": image.mean((0, 1))}


IN_PYTHON: dict[str, tuple[Callable[[], Any], str]] = {
    # What is inverted.
    "unknown representation": (
        lambda: invjax.representation("hogg"),
        "unknown representation 'hogg'",
    ),
    "network without a layer": (
        lambda: invjax.representation("alexnet"),
        "alexnet has no layer ''",
    ),
    "unknown layer": (
        lambda: invjax.representation("alexnet/relu9"),
        "alexnet has no layer 'relu9'; it has conv1, relu1",
    ),
    "a name with another's joined to it": (
        lambda: invjax.representation("hogb+hogg"),
        "unknown representation 'hogg'",
    ),
    "missing weights": (
        lambda: invjax.representation("caffenet/fc8", weights_dir="/nowhere"),
        "caffenet",
    ),
    "what cannot be called": (lambda: invert_it(function=3), "which cannot be called"),
    "a model in training mode": (
        lambda: invert_it(np.ones(3), Trained()),
        "changes itself when it is called",
    ),
    "a function that draws anew": (
        lambda: invert_it(function=lambda x: phi(x) + np.random.rand()),  # noqa: NPY002
        "two different codes of one image",
    ),
    "a function of NumPy": (
        lambda: invert_it(function=lambda x: jnp.asarray(np.sin(np.asarray(x)))),
        "cannot be traced",
    ),
    "a function that returns classes": (
        lambda: invert_it(function=lambda x: jnp.argmax(x, 0)),
        "which has no derivative",
    ),
    "a function that returns nothing": (
        lambda: invert_it(function=lambda x: None),
        "an array, or a pytree of arrays, is accepted",
    ),
    # Codes.
    "channels first": (
        lambda: invert_it(np.moveaxis(CODE, -1, 0)),
        "channels are the last axis: numpy.moveaxis(code, -3, -1)",
    ),
    "a leading axis": (lambda: invert_it(CODE[None]), "invert_batch takes several"),
    "another shape": (lambda: invert_it(CODE[1:]), "has (4, 4, 3), which is accepted"),
    "another tree": (
        lambda: invert_it({"shallow": CODE}, two_layers),
        "the code is a dict of ['shallow'] (4, 4, 3), but the representation returns a",
    ),
    "a tree for one array": (
        lambda: invert_it({"code": CODE}),
        "but the representation returns one array (4, 4, 3)",
    ),
    "one array for a tree": (
        lambda: invert_it(CODE, two_layers),
        "the code is one array (4, 4, 3), but the representation returns a dict",
    ),
    "a word": (lambda: invert_it("cat"), "an array of real numbers is accepted"),
    "nothing": (lambda: invert_it(None), "the code is a NoneType"),
    "complex numbers": (lambda: invert_it(1j * CODE), "codes are complex"),
    "not a number": (lambda: invert_it(np.nan * CODE), "a target code is not finite"),
    "zeros": (lambda: invert_it(0 * CODE), "target code is zero"),
    # Keys.
    "a seed for a key": (lambda: invert_it(key=0), "a random key is accepted"),
    "several keys for one": (
        lambda: invert_it(key=jax.random.split(KEY)),
        "one key is accepted",
    ),
    "one key for several": (
        lambda: invert_them(KEY, np.stack([CODE] * 2)),
        "as many keys as codes, 2, are accepted",
    ),
    "more keys than codes": (
        lambda: invert_them(jax.random.split(KEY, 3), np.stack([CODE] * 2)),
        "as many keys as codes, 2, are accepted",
    ),
    "no codes": (
        lambda: invert_them(jax.random.split(KEY, 2), np.zeros((0, 4, 4, 3))),
        "one for each lane",
    ),
    # Settings.
    "unknown preset": (
        lambda: invert_it(preset="quick"),
        "unknown preset 'quick'; known are cvpr2015, fast",
    ),
    "negative lambda": (lambda: invert_it(tv_weight=-1), "finite numbers from 0 up"),
    "lambda that is no number": (
        lambda: invert_it(tv_weight=np.nan),
        "tv_weight is nan; finite numbers from 0 up are accepted",
    ),
    "a lambda too many": (
        lambda: invert_them(
            jax.random.split(KEY, 2), np.stack([CODE] * 2), tv_weight=np.ones(3)
        ),
        "tv_weight has shape (3,); a number or one per lane, (2,), is accepted",
    ),
    "no steps": (lambda: invert_it(num_steps=0), "num_steps is 0; it must be positive"),
    "history of no steps": (
        lambda: invert_it(history_every=0),
        "history_every is 0; it must be positive",
    ),
    "beta": (lambda: invert_it(beta=0), "beta is 0; a positive number is accepted"),
    "jitter": (lambda: invert_it(jitter=0), "pixels from 1 (none) up are accepted"),
    "jitter and views": (
        lambda: invert_it(preset="natural", jitter=4),
        "jitter belongs to presets without views",
    ),
    "weight of another preset": (
        lambda: invert_it(data_weight=3.0),
        "data_weight belongs to preset ijcv2016",
    ),
    "dead_relu": (
        lambda: invert_it(dead_relu="restart", initial_image=IMAGE),
        "leave out one of them",
    ),
    "image shape, channels first": (
        lambda: invert_it(image_shape=(3, 16, 16)),
        "(height, width, channels) is accepted, here (16, 16, 3)",
    ),
    "no image shape": (
        lambda: invert_it(image_shape=None),
        "a representation without an image_shape of its own needs it",
    ),
    "mask": (
        lambda: invert_it(mask=np.ones((5, 4, 1))),
        "mask has shape (5, 4, 1), codes have (4, 4, 3)",
    ),
    "mask of zeros": (lambda: invert_it(mask=0.0), "zero under the mask in lane 0"),
    "weights of one array": (
        lambda: invert_it(code_weights=2.0),
        "code_weights are for codes of several arrays",
    ),
    "misspelt keyword": (
        lambda: invert_it(tv_wieght=1.0),
        "there is no keyword 'tv_wieght'; did you mean tv_weight?",
    ),
    "within jit": (
        lambda: jax.jit(lambda code: invert_it(code).image)(CODE),
        "cannot run inside jax.jit, vmap or grad",
    ),
    # Pixels.
    "bytes to start from": (
        lambda: invert_it(initial_image=BYTES),
        "takes floats in [0, 1], not uint8: divide 8-bit pixels by 255",
    ),
    "grey levels to 255": (
        lambda: images.centre_crop(255 * IMAGE, 8),
        "[0, 1]",
    ),
    "bytes for HOG": (
        lambda: invjax.representation("hogb")(BYTES),
        "uint8",
    ),
    "bytes for a network": (
        lambda: micro_representation("conv1")(BYTES),
        "takes floats in [0, 1], not uint8: divide 8-bit pixels by 255",
    ),
    "grey for a network": (
        lambda: micro_representation("conv1")(IMAGE[..., :1]),
        "takes an RGB image [h, w, 3], not [16, 16, 1]",
    ),
    "channels first for a network": (
        lambda: micro_representation("conv1")(np.moveaxis(IMAGE, -1, 0)),
        "takes an RGB image [h, w, 3], not [3, 16, 16]",
    ),
    "another size for dense layers": (
        lambda: micro_representation("fc3")(IMAGE),
        "and takes images of [32, 32, 3], not [16, 16, 3]",
    ),
    "bytes for a metric": (
        lambda: errors.psnr(BYTES, IMAGE),
        "takes floats in [0, 1], not uint8: divide 8-bit pixels by 255",
    ),
    "unknown sample": (lambda: images.sample("lenna"), "astronaut, chelsea, coffee"),
}


@pytest.mark.filterwarnings("ignore:initial_image has values")
@pytest.mark.parametrize("case", IN_PYTHON)
def test_in_python(case: str):
    attempt, words = IN_PYTHON[case]
    with pytest.raises((ValueError, TypeError, LookupError)) as caught:
        attempt()
    message = str(caught.value)
    assert words in message and "\n" not in message and len(message) < 600


SMALL = ("--representations=hogb", "--image_size=32", "--num_steps=1")
RUN = ("--workdir={tmp}/run", *SMALL)
GIVEN = (*RUN, "--images={tmp}/one.png")
CODED = ("--workdir={tmp}/run", "--representations=hogb", "--num_steps=1")
MAINS = {"invert": invert.main, "sample": sample.main}

COMMANDS: dict[str, tuple[str, tuple[str, ...], int, str]] = {
    "no workdir": ("invert", ("--images={tmp}/one.png",), 1, "--workdir is missing"),
    "workdir is a file": (
        "invert", (*GIVEN, "--workdir={tmp}/one.png"), 1, "{tmp}/one.png",
    ),
    "workdir below a file": (
        "invert", (*GIVEN, "--workdir={tmp}/one.png/run"), 1, "{tmp}/one.png",
    ),
    "workdir of other files": (
        "invert", (*GIVEN, "--workdir={tmp}"), 1, "--workdir={tmp}",
    ),
    "a word without --": ("invert", (*GIVEN, "photo.png"), 2, "unexpected argument"),
    "unknown flag": ("invert", (*GIVEN, "--num_step=3"), 2, "num_step"),
    "no number": ("invert", (*GIVEN, "--num_steps=many"), 2, "--num_steps=many"),
    "too few steps": ("invert", (*GIVEN, "--num_steps=0"), 2, "--num_steps=0"),
    "too few starts": ("invert", (*GIVEN, "--num_starts=0"), 2, "--num_starts=0"),
    "no lanes at once": ("invert", (*GIVEN, "--batch_size=0"), 2, "--batch_size=0"),
    "unknown preset": (
        "invert", (*GIVEN, "--preset=quick"), 2, "should be one of <cvpr2015|",
    ),
    "unknown type": ("invert", (*GIVEN, "--compute_dtype=float8"), 2, "<float32|"),
    "negative seed": ("invert", (*GIVEN, "--seed=-1"), 2, "--seed=-1"),
    "negative lambda": (
        "invert", (*GIVEN, "--tv_weight=-1"), 1, "a comma list of numbers from 0 up",
    ),
    "lambda is a word": ("invert", (*GIVEN, "--tv_weight=high"), 1, "--tv_weight=high"),
    "negative alpha": ("invert", (*GIVEN, "--alpha_weight=-1"), 2, "--alpha_weight=-1"),
    "infinite tolerance": (
        "invert", (*GIVEN, "--tolerance=inf"), 1, "a finite number from 0 up",
    ),
    "no such image": (
        "invert", (*RUN, "--images={tmp}/absent.png"), 1, "{tmp}/absent.png",
    ),
    "a glob of nothing": ("invert", (*RUN, "--images={tmp}/*.webp"), 1, "*.webp"),
    "a folder without images": ("invert", (*RUN, "--images={tmp}/empty"), 1, "empty"),
    "a text as image": (
        "invert", (*RUN, "--images={tmp}/notes.png"), 1, "{tmp}/notes.png",
    ),
    "an image twice": (
        "invert", (*RUN, "--images={tmp}/one.png,{tmp}/one.png"), 1, "twice",
    ),
    "unknown sample": ("invert", (*RUN, "--images=sample:lenna"), 1, "lenna"),
    "image and code": (
        "invert", (*GIVEN, "--code={tmp}/code.npy"), 1, "exclude each other",
    ),
    "unknown representation": (
        "invert", (*GIVEN, "--representations=hogg"), 1,
        "--representations=hogg: unknown representation",
    ),
    "unknown layer": (
        "invert", (*GIVEN, "--representations=alexnet/relu9"), 1, "no layer 'relu9'",
    ),
    "a representation twice": (
        "invert", (*GIVEN, "--representations=hogb,hogb"), 1, "names repeat",
    ),
    "missing weights": (
        "invert",
        (*GIVEN, "--representations=caffenet/fc8", "--weights_dir={tmp}/empty"), 1,
        "caffenet",
    ),
    "too small an image": (
        "invert", (*GIVEN, "--image_size=8", "--on_bad_image=refuse"), 1, "16 x 16 px",
    ),
    "no such code": ("invert", (*CODED, "--code={tmp}/absent.npy"), 1, "no such file"),
    "a code of another shape": (
        "invert", (*CODED, "--code={tmp}/flat.npy"), 1, "hogb codes are (rows,",
    ),
    "a picture as code": (
        "invert", (*CODED, "--code={tmp}/one.png"), 1, "is of another kind",
    ),
    "a code of zeros": ("invert", (*CODED, "--code={tmp}/zeros.npy"), 1, "zero"),
    "a mask of another shape": (
        "invert", (*GIVEN, "--mask={tmp}/flat.npy"), 1, "a mask has shape (20,)",
    ),
    "a start of another size": (
        "invert", (*CODED, "--code={tmp}/code.npy", "--initial_image={tmp}/one.png"), 1,
        "but the image to be found",
    ),
    "weights of one representation": (
        "invert", (*GIVEN, "--code_weights=1,2"), 1, "--code_weights=1,2",
    ),
    "a process too many": (
        "invert", (*GIVEN, "--num_processes=2", "--process_id=2"), 1, "process_id",
    ),
    "a picture every no step": (
        "invert", (*GIVEN, "--save_trajectory=0"), 2, "--save_trajectory=0",
    ),
    "leaky without ReLUs": (
        "invert", (*GIVEN, "--dead_relu=leaky"), 1, "has no relaxed derivative",
    ),
    "nobody to be told from": (
        "invert", (*GIVEN, "--identify_among={tmp}/empty"), 1, "{tmp}/empty",
    ),
    "repulsion by another preset": (
        "sample", (*GIVEN, "--method=repulsion", "--preset=ijcv2016"), 1,
        "presets other than ijcv2016",
    ),
    "chains without a temperature": ("sample", (*GIVEN, "--method=mala"), 1, "--temp"),
    "unknown method": ("sample", (*GIVEN, "--method=gibbs"), 2, "<starts|"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    picture = made_up.images()["one"]
    images.to_pillow(picture).save(tmp_path / "one.png")
    (tmp_path / "notes.png").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "code.npy", np.ones((6, 6, 27)))
    np.save(tmp_path / "zeros.npy", np.zeros((4, 4, 27)))
    np.save(tmp_path / "flat.npy", np.ones(20))
    return tmp_path


def _content(folder: pathlib.Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


@pytest.mark.parametrize("case", COMMANDS)
def test_on_the_command_line(
    case: str, folder: pathlib.Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
):
    main, argv, code, words = COMMANDS[case]
    argv = tuple(part.format(tmp=folder) for part in argv)
    monkeypatch.setattr(sys, "argv", [f"{main}.py", *argv])
    before = _content(folder)
    with flagsaver.flagsaver(), pytest.raises(SystemExit) as ended:
        flags.FLAGS.unparse_flags()
        try:
            binary.run(MAINS[main])
        finally:
            # Other tests of this process set flags without a command line.
            flags.FLAGS.mark_as_parsed()
    assert ended.value.code == code
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(f"{main}.py: ")
    assert words.format(tmp=folder) in said[0], said[0]
    assert _content(folder) == before
