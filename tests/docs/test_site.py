"""The site is built without a warning, and its index has every public name.

Where Sphinx and its theme are missing, these tests are skipped; the extra `docs` has
them, and `.ci/run` a stage.
"""

import html
import importlib
import os
import pathlib
import re
import subprocess
import sys
import zlib

import pytest

from tests.docs import typed

for package in ("sphinx", "myst_nb", "sphinx_book_theme"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The built site; notebooks run a few steps."""
    folder: pathlib.Path = tmp_path_factory.mktemp("site")
    path = os.pathsep.join([str(typed.ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "INVJAX_STEPS": "4"}
    options = ("-W", "--keep-going", "-q", "-E", "-b", "html")
    doctrees = folder / "doctrees"
    subprocess.run(
        [
            *(sys.executable, "-m", "sphinx", *options, "-d", str(doctrees)),
            *(str(typed.DOCS), str(folder / "html")),
        ],
        env=environment,
        check=True,
    )
    return folder / "html"


def _names(site: pathlib.Path) -> set[str]:
    """All names of Python that can be linked to, as the inventory has them."""
    # Four lines about it, then lines "name kind priority place ..." in zlib's format.
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    lines = zlib.decompress(packed).decode().splitlines()
    return {line.split()[0] for line in lines if line.split()[1].startswith("py:")}


def test_public_names_are_in_the_index(site: pathlib.Path):
    names = _names(site)
    for package in ("invjax", "invjax.images"):
        module = importlib.import_module(package)
        with_text = [name for name in module.__all__ if callable(getattr(module, name))]
        missing = {f"{package}.{name}" for name in with_text} - names
        assert not missing


def test_every_page_and_picture_is_there(site: pathlib.Path):
    for page in typed.DOCS.rglob("*.md"):
        built = site / page.relative_to(typed.DOCS).with_suffix(".html")
        assert built.exists(), built
        for picture in re.findall(r'<img[^>]* src="([^"]+)"', built.read_text()):
            if not picture.startswith(("http", "data:")):
                assert (built.parent / picture).exists(), (page, picture)


def test_docstrings_are_shown_as_they_are_written(site: pathlib.Path):
    text = (site / "api" / "inversion.html").read_text()
    plain = html.unescape(re.sub("<[^>]+>", "", text))
    assert "sum over pixels and channels of |x|^alpha" in plain
    assert "alpha_norm(2 * jnp.ones((1, 3, 1)))" in plain
    assert "\\*" not in plain and "\\|" not in plain
