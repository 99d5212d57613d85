"""The Python of the page on several layers runs as it stands, and finds the codes."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "several_layers.md"


def test_the_page_on_several_layers():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    errors = []
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE}, block {number}", "exec"), names)
        phi = [names["phi"], names.get("layers"), names.get("textures")][number]
        error = jax.tree.map(_error, phi(names["result"].image), names["code"])
        errors.append(error)
    by_name, by_tree, styles = errors
    assert max(by_name.values()) < 0.3
    assert max(by_tree.values()) < 0.5
    # The same textures are elsewhere.
    assert min(styles.values()) > 0.5
    assert float(names["result"].terms.data) < 0.05


def _error(found: jax.Array, wanted: jax.Array) -> float:
    return float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))
