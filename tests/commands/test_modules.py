"""Networks of a user's own on the command line: --module and --layer."""

import json
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from absl.testing import flagsaver

import invjax
from invjax.commands import invert, shared_flags
from invjax.images import reading
from invjax.runs import loading, modules
from invjax.runs.errors import Refusal
from tests.runs import made_up

MODELS = """
import jax, jax.numpy as jnp, numpy as np
import invjax
from flax import linen, nnx

seed, calls = 0, 0
number = 3


def network():
    global calls
    calls += 1
    rngs = nnx.Rngs(seed)
    return nnx.Sequential(
        nnx.Conv(3, 4, (3, 3), strides=2, rngs=rngs), nnx.relu,
        nnx.Conv(4, 5, (3, 3), strides=2, rngs=rngs),
    )


model = network()


class Tiny(nnx.Module):
    def __init__(self):
        self.conv = nnx.Conv(3, 2, (3, 3), rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.conv(x)


def rows(image):
    return image.mean((1, 2))


def weighted():
    weights = jnp.arange(3.0) + seed
    total = jax.jit(lambda image: image @ weights)
    return lambda image: total(image)[::4, ::4]


def pair():
    module = linen.Dense(2)
    return module, module.init(jax.random.key(0), jnp.ones((1, 16, 16, 3)))


def cut():
    return invjax.from_nnx(network(), layer="layers.0", image_shape=(16, 16, 3))


def wide():
    return invjax.from_nnx(network(), image_shape=(16, 24, 3))


def two(image):
    return image, image


def noisy(image):
    return image + np.random.normal()


def broken():
    raise FileNotFoundError("no such file:\\nweights.pt")


def nothing():
    pass


def leave():
    raise SystemExit(2)
"""


@pytest.fixture
def models(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[pathlib.Path]:
    """A folder with a module `models_of_mine`, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    (tmp_path / "models_of_mine.py").write_text(MODELS)
    (tmp_path / "needs_more.py").write_text("import not_there_at_all\n")
    (tmp_path / "misspelt.py").write_text("def f(:\n")
    picture = np.random.default_rng(0).uniform(size=(16, 16, 3)).astype(np.float32)
    reading.write_png(tmp_path / "one.png", picture)
    yield tmp_path
    modules._network.cache_clear()
    for name in ("models_of_mine", "needs_more", "misspelt"):
        sys.modules.pop(name, None)


def _load(name: str, **values: Any) -> Any:
    settings = made_up.settings(**({"image_size": 16} | values))
    return loading.load_representation(f"models_of_mine:{name}", settings)


def _run(**values: Any) -> None:
    given = {"images": "one.png", "image_size": 16, "num_steps": 2, "workdir": "run"}
    with flagsaver.flagsaver(**(given | values)):
        invert.main()


def test_a_run_of_two_layers(models: pathlib.Path):
    module = {"module": "models_of_mine:network", "layer": ["layers.0", " layers.2"]}
    _run(**module, module_mean=["0.5"], module_std=["1/4"])
    names = [f"models_of_mine:network/layers.{number}" for number in (0, 2)]
    lines = (models / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["representation"] for line in lines] == names
    folder = models / "run" / "reconstructions" / "one"
    own = {f"models_of_mine_network_layers.{number}" for number in (0, 2)}
    assert {path.name for path in folder.iterdir()} == own
    assert names[1] in (models / "run" / "index.html").read_text()
    config = json.loads((models / "run" / "config.json").read_text())
    assert [len(config["weights"][name]) for name in names] == [64, 64]
    assert (config["settings"]["mean"], config["settings"]["std"]) == ([0.5], [0.25])
    # Once where `model` is made, and once for both layers.
    assert vars(sys.modules["models_of_mine"])["calls"] == 2


def test_runs_are_not_gone_on_with_when_weights_have_changed(models: pathlib.Path):
    _run(module="models_of_mine:network", layer=["layers.0"])
    _run(module="models_of_mine:network", layer=["layers.0"])
    vars(sys.modules["models_of_mine"])["seed"] = 1
    modules._network.cache_clear()
    with pytest.raises(Refusal, match="other weights of models_of_mine:network/lay"):
        _run(module="models_of_mine:network", layer=["layers.0"])
    assert len((models / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_layers_are_listed(models: pathlib.Path, capsys: pytest.CaptureFixture):
    with flagsaver.flagsaver(list=True, module="models_of_mine:network", image_size=16):
        invert.main()
    assert "layers.2  4 x 4 x 5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("network", (4, 4, 5)),
        ("network/layers.0", (8, 8, 4)),
        ("model", (4, 4, 5)),
        ("Tiny", (16, 16, 2)),
        ("pair", (16, 16, 2)),
        ("rows", (16,)),
        ("weighted", (4, 4)),
        ("cut", (8, 8, 4)),
    ],
)
def test_what_is_accepted(models: pathlib.Path, name: str, shape: tuple[int, ...]):
    phi = _load(name)
    assert phi.name == f"models_of_mine:{name}"
    assert phi.geometry.shape == shape
    assert phi(np.zeros((16, 16, 3), np.float32)).shape == shape


def test_preprocessing_reaches_networks_and_functions(models: pathlib.Path):
    image = np.full((16, 16, 3), 0.75, np.float32)
    options: dict[str, Any] = {"mean": (0.5, 0.25, 0.0), "std": (0.5,)}
    np.testing.assert_allclose(_load("rows", **options)(image), (0.5 + 1 + 1.5) / 3)
    wanted = invjax.from_nnx(
        sys.modules["models_of_mine"].model,
        image_shape=(16, 16, 3),
        mean=(0.5, 0.25, 0.0),
        std=0.5,
    )
    np.testing.assert_array_equal(_load("model", **options)(image), wanted(image))


def test_the_digest_is_of_the_arrays_of_a_function(models: pathlib.Path):
    first = _load("weighted").weights_digest
    assert first != _load("rows").weights_digest
    assert first == _load("weighted").weights_digest
    vars(sys.modules["models_of_mine"])["seed"] = 1
    modules._network.cache_clear()
    assert first != _load("weighted").weights_digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("models_of_min:network", "no module models_of_min.*close are models_of_mine"),
        ("models_of_mine:netwrk", "models_of_mine has no netwrk; close are network"),
        ("models_of_mine:number", "is an int; a PyTorch, NNX, Equinox or Keras model"),
        ("models_of_mine:nothing", "returned None; a PyTorch, NNX"),
        (
            "models_of_mine:broken",
            r"raised FileNotFoundError: no such file: weights.pt \(models_of_mine.py,",
        ),
        ("models_of_mine:leave", "ended the program"),
        ("models_of_mine:two", "two: layer .* returns a tuple and not one array"),
        ("models_of_mine:noisy", "gives two different codes of one image"),
        ("models_of_mine:network/layers.1", "no layer 'layers.1'; close are layers.2"),
        ("models_of_mine:rows/conv", "--layer=conv: .* is a function, which has no la"),
        ("models_of_mine:cut/conv", "--layer means nothing .* returns Sequential/laye"),
        ("models_of_mine:wide", r"takes images of \[16, 24, 3\]; squares with 3"),
        ("needs_more:f", r"importing needs_more raised ModuleNotFoundError: .*line 1"),
        ("misspelt:f", "importing misspelt raised SyntaxError: invalid syntax"),
        ("models/of_mine:network", "no module|MODULE:CALLABLE is accepted"),
    ],
)
def test_what_is_refused_is_said_in_one_line(
    models: pathlib.Path, name: str, message: str
):
    with pytest.raises(Refusal, match=message) as caught:
        loading.load_representation(name, made_up.settings(image_size=16))
    assert "\n" not in str(caught.value) and str(caught.value).startswith("--")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"module": "mine"}, "--module=mine: MODULE:CALLABLE is accepted"),
        ({"module": "a/mine.py:net"}, "is accepted, .*; write a.mine:net"),
        ({"module": "a:b", "layer": ["x", "x"]}, "--layer=.*names repeat"),
        ({"module": "a:b", "layer": ["x", ""]}, "--layer=x,: a layer has no name"),
        ({"module": "a:b", "layer": ["x/y", "x_y"]}, "would have the same folder"),
        ({"layer": ["x"]}, "--layer is of --module, which is missing"),
        ({"module_mean": ["1"]}, "--module_mean is of --module, which is missing"),
        (
            {"module": "a:b", "module_std": ["1/0"]},
            "--module_std=1/0: a number, or one",
        ),
    ],
)
def test_flags_that_are_refused(values: Any, message: str):
    with flagsaver.flagsaver(workdir="run", **values):
        with pytest.raises(Refusal, match=message):
            shared_flags.from_flags(images="a.png", representations=("hog",))


def test_defaults_give_way_to_a_module():
    with flagsaver.flagsaver(workdir="run", module="a:b"):
        settings = shared_flags.from_flags(images="", representations=("x",)).settings
    assert settings.representations == ("a:b",)
    both: dict[str, Any] = {"representations": ["hogb"], "module": "a:b"}
    with flagsaver.flagsaver(workdir="run", layer=["x", " y"], **both):
        settings = shared_flags.from_flags(images="", representations=("x",)).settings
    assert settings.representations == ("hogb", "a:b/x", "a:b/y")


def test_bfloat16_is_refused(models: pathlib.Path):
    with pytest.raises(Refusal, match="--compute_dtype=bfloat16: .* in its own type"):
        _load("network", compute_dtype="bfloat16")


@pytest.mark.parametrize(
    ("package", "text", "shape"),
    [
        ("torch", "nn.Conv2d(3, 4, 3)", (4, 14, 14)),
        ("equinox", "nn.Conv2d(3, 4, 3, key=jax.random.key(0))", (4, 14, 14)),
        (
            "keras",
            "Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(4, 3)])",
            (14, 14, 4),
        ),
    ],
)
def test_networks_of_other_frameworks(
    models: pathlib.Path, package: str, text: str, shape: tuple[int, ...]
):
    for name in (package, *(["torchax"] if package == "torch" else [])):
        pytest.importorskip(name)
    text = f"import jax, {package}\nmodel = {package}.{text}\nmake = lambda: model\n"
    (models / f"of_{package}.py").write_text(text)
    for callable_ in ("model", "make"):
        name = f"of_{package}:{callable_}"
        phi: Any = loading.load_representation(name, made_up.settings(image_size=16))
        assert phi.geometry.shape == shape and phi.name == name
