"""The flags that binaries share, as settings."""

import pytest
from absl import flags
from absl.testing import flagsaver

from invjax.commands import shared_flags
from invjax.runs.errors import Refusal
from tests.runs import made_up


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
        batch_size=16,
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
