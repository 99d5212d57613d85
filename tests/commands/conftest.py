"""Inputs that several commands are tested on."""

import pathlib

import pytest

from tests.experiments import inputs


@pytest.fixture
def photographs(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder of two pictures, one.png and two.png."""
    folder = tmp_path / "photographs"
    inputs.write_photographs(folder)
    return folder
