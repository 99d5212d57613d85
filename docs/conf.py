"""How Sphinx builds the site: `sphinx-build -W docs build/site`."""

import importlib.metadata
import re
from typing import Any

project = "invjax"
author = "the authors of invjax"
release = importlib.metadata.version("invjax")
version = release

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["build"]
html_theme = "sphinx_book_theme"
html_title = "invjax"
html_theme_options = {"show_toc_level": 2, "show_navbar_depth": 2}
html_copy_source = False

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
# Notebooks are executed at every build; a cell that fails, fails the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600

# A single pair of backticks is code in docstrings, as it is in Markdown.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_maximum_signature_line_length = 88


def _leave_out_fields(
    app: Any, what: str, name: str, item: Any, skip: bool, options: Any
) -> bool | None:
    """Fields of NamedTuples are in the docstring of their class."""
    del app, what, name, options
    return True if type(item).__name__ == "_tuplegetter" else skip or None


def _as_restructured_text(
    app: Any, what: str, name: str, item: Any, options: Any, lines: list[str]
) -> None:
    """Lets bars and asterisks stand in docstrings, which are plain text."""
    del app, what, name, item, options
    is_example = False
    for number, line in enumerate(lines):
        is_example = bool(line.strip()) and (is_example or line.lstrip()[:3] == ">>>")
        if not is_example:
            # What is between backticks is code.
            parts = line.split("`")
            parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
            lines[number] = "`".join(parts)


def _shorten(
    app: Any,
    what: str,
    name: str,
    item: Any,
    options: Any,
    signature: str | None,
    result: str | None,
) -> tuple[str, str] | None:
    """Names arrays and functions without where they are in memory or in JAX."""
    del app, what, name, item, options
    if signature is None:
        return None
    pattern = r"jaxlib\._jax\.|<function ([\w.]+)(?: at 0x\w+)?>"
    shorter = [re.sub(pattern, r"\1", text or "") for text in (signature, result)]
    return shorter[0], shorter[1]


def _offer_files(app: Any, page: str, source: list[str]) -> None:
    """Links to Markdown outside of docs/, which is no page of the site, are downloads.

    In the repository, where docs/ is read as well, they are ordinary links.
    """
    del app, page
    link = r"\[([^\]]+)\]\((\.\./[^)#]+\.md)(?:#[^)]*)?\)"
    source[0] = re.sub(link, r"{download}`\1 <\2>`", source[0])


def setup(app: Any) -> None:
    """Registers what reads docstrings."""
    app.connect("source-read", _offer_files)
    app.connect("autodoc-process-signature", _shorten)
    app.connect("autodoc-skip-member", _leave_out_fields)
    # Before napoleon, which has priority 500.
    app.connect("autodoc-process-docstring", _as_restructured_text, priority=400)
