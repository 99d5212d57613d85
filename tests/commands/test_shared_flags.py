"""The flags that binaries share, as settings."""

import re

import pytest
from absl import flags
from absl.testing import flagsaver

from invjax.commands import help, shared_flags
from invjax.runs.errors import Refusal
from tests.runs import made_up


def test_each_shared_flag_has_one_place_in_the_help():
    shared = flags.FLAGS.flags_by_module_dict()[shared_flags.__name__]
    # "layers" is for studies of one network and for benchmarks alone.
    names = {flag.name for flag in shared} | {"weights_dir", "classifier"}
    listed = [name for group in help.GROUPS.values() for name in group]
    assert len(listed) == len(set(listed)) and set(listed) == names - {"layers"}


def test_settings_without_flags():
    with flagsaver.flagsaver(workdir="run"):
        request = shared_flags.from_flags(
            images="a.png", representations=("hog", "hogb")
        )
    assert request.workdir == "run" and not request.dry_run and not request.overwrite
    assert request.settings == made_up.settings(
        images="a.png",
        representations=("hog", "hogb"),
        num_steps=None,
        batch_size=None,
    )


def test_defaults_of_a_study_give_way_to_flags():
    defaults: dict = {
        "images": "a.png",
        "representations": ("hog",),
        "num_starts": 4,
        "preset": "ijcv2016",
        "tv_weight": (0.5, 5.0),
    }
    with flagsaver.flagsaver(dry_run=True):
        settings = shared_flags.from_flags(**defaults).settings
        assert (settings.num_starts, settings.preset) == (4, "ijcv2016")
        assert settings.tv_weight == (0.5, 5.0)
        with flagsaver.flagsaver(
            code="codes.npz",
            representations=["dsift", " hog "],
            num_starts=1,
            preset="adam",
            tv_weight=["0", "1e-3"],
        ):
            settings = shared_flags.from_flags(**defaults).settings
    assert settings.images is None and settings.code == "codes.npz"
    assert settings.representations == ("dsift", "hog")
    assert (settings.num_starts, settings.preset) == (1, "adam")
    assert settings.tv_weight == (0.0, 1e-3)


def test_flags_that_are_not_used_are_refused():
    with flagsaver.as_parsed(workdir="run", seed="3"):
        shared_flags.refuse_others("workdir", "seed")
        with pytest.raises(Refusal, match="--seed means nothing here") as caught:
            shared_flags.refuse_others("workdir", "images")
    assert str(caught.value).endswith("--workdir, --images are accepted")
    shared_flags.refuse_others()


def test_layers_are_one_flag():
    assert shared_flags.define_layers() is shared_flags.define_layers()
    assert "layers" in flags.FLAGS


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("workdir", "~/run", "{home}/run"),
        ("workdir", "~", "{home}"),
        ("mask", "~/m.npy", "{home}/m.npy"),
        ("code", "~/codes/a.npz", "{home}/codes/a.npz"),
        ("weights_dir", "~/weights", "{home}/weights"),
        (
            "images",
            "a.png, ~/b/*.png,sample:chelsea",
            "a.png,{home}/b/*.png,sample:che",
        ),
        ("workdir", "runs/~a", "runs/~a"),
        ("workdir", "~nobody-here/a", "~nobody-here/a"),
    ],
)
def test_every_path_may_begin_with_the_home_folder(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, expected: str
):
    monkeypatch.setenv("HOME", "/home/me")
    with flagsaver.as_parsed(**{"dry_run": "true", name: given}):
        request = shared_flags.from_flags(images="a.png", representations=("hog",))
    found = {**request.settings.as_json(), "workdir": request.workdir}[name]
    assert found.startswith(expected.format(home="/home/me"))


def test_every_flag_that_is_a_path_is_defined_as_one():
    """By its help: a flag that names a folder or a file is no plain string."""
    by_module = flags.FLAGS.flags_by_module_dict()
    found: dict[str, set[str]] = {"path": set(), "string": set()}
    for name in ("invjax.commands.shared_flags", "invjax.commands.binary"):
        for flag in by_module[name]:
            if re.search(r"\b(folders?|files?)\b", flag.help, re.IGNORECASE):
                kind = "path" if "path" in flag.flag_type() else flag.flag_type()
                found.setdefault(kind, set()).add(flag.name)
    own = {"workdir", "images", "code", "mask", "initial_image", "weights_dir"}
    assert found["path"] == own
    assert not found["string"]


def test_images_are_given_once():
    """A shell makes two flags of --images={a,b}.tar, and one would be lost."""
    with flagsaver.flagsaver():
        with pytest.raises(flags.Error, match="--images=b.tar: already defined as a"):
            flags.FLAGS(["", "--images=a.tar", "--images=b.tar"])
    flags.FLAGS([""])


def test_the_classifier_is_a_setting_where_a_binary_has_it():
    shared_flags.define_classifier()
    with flagsaver.flagsaver(workdir="run", classifier="vgg16/fc8"):
        request = shared_flags.from_flags(images="a.png", representations=("hog",))
    assert request.settings.classifier == "vgg16/fc8"
