"""Makes the pictures of docs/concepts.md, in a few minutes on two cores.

    python docs/make_pictures.py            # all of them
    python docs/make_pictures.py views      # one of them

The photograph is scikit-image's chelsea, the representations are HOGb and AlexNet's
relu3 and pool5, seed 0. Pictures are written as docs/pictures/NAME.jpg.
"""

import pathlib
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import invjax
from invjax import images
from invjax.inversion import objective, presets, views
from invjax.report import contrast, glyphs
from invjax.report.contact_sheet import Cell, Row, contact_sheet
from invjax.representations.cnn import CnnRepresentation

FOLDER = pathlib.Path(__file__).parent / "pictures"
STEPS = 200
CELL = 150


def photograph() -> np.ndarray:
    """The cat, 224 x 224 px."""
    return images.centre_crop(images.sample("chelsea"), 224)


def lane_key(start: int = 0) -> jax.Array:
    """The key of the photograph's lane of that start."""
    return invjax.lane_key(seed=0, image_id=images.image_id(photograph()), start=start)


def data_term() -> list[Row]:
    """A photograph, its HOGb code, and an image with nearly the same code."""
    grey = images.to_grey(photograph())
    phi = invjax.representation("hogb")
    code = phi(jnp.asarray(grey))
    result = invjax.invert(
        lane_key(), code, phi, image_shape=grey.shape, num_steps=STEPS
    )
    glyph = glyphs.hog_glyph(code)[..., None]
    found = contrast.stretched(np.asarray(result.image))
    cells = [Cell(grey, "x0"), Cell(glyph, "Phi(x0), drawn"), Cell(found, "x*")]
    return [Row("HOGb", cells)]


def _grid(name: str, captions: list[str], **settings: jax.Array) -> Row:
    """Inversions of one code of AlexNet, one for each value of a setting."""
    phi = invjax.representation(name)
    code = phi(jnp.asarray(photograph()))
    num_lanes = len(captions)
    grid = invjax.invert_batch(
        jnp.stack([lane_key()] * num_lanes),
        jnp.stack([code] * num_lanes),
        phi,
        num_steps=STEPS,
        **settings,
    )
    errors = [
        float(jnp.linalg.norm(phi(image) - code) / jnp.linalg.norm(code))
        for image in grid.image
    ]
    cells = [
        Cell(np.asarray(image), f"{caption}: {error:.0%}")
        for image, caption, error in zip(grid.image, captions, errors, strict=True)
    ]
    return Row(f"{name}: relative error of the code", cells)


def total_variation() -> list[Row]:
    """One code inverted with four weights of the total variation."""
    values = (0.0, 0.5, 5.0, 50.0)
    captions = [f"lambda_V {value:g}" for value in values]
    return [_grid("alexnet/relu3", captions, tv_weight=jnp.array(values))]


def alpha_norm() -> list[Row]:
    """One code inverted with four weights of the alpha-norm."""
    factors = (0.0, 1.0, 1e3, 1e6)
    captions = ["0", "default", "x 1,000", "x 1,000,000"]
    weights = presets.ALPHA_WEIGHT * jnp.array(factors)
    return [_grid("alexnet/relu3", captions, alpha_weight=weights)]


def relaxed_derivatives() -> list[Row]:
    """Where a pool5 code pulls at the noise that a descent begins with."""
    phi = invjax.representation("alexnet/pool5")
    assert isinstance(phi, CnnRepresentation)
    code = phi(jnp.asarray(photograph()))
    noise = jax.random.normal(jax.random.key(0), (224, 224, 3)) * presets.NATURAL_RMS
    start = objective.to_image(noise, phi.centre)
    cells = [Cell(np.asarray(start), "noise")]
    for amount, caption in ((0.0, "exact"), (1.0, "relaxed")):
        relaxed = phi.relaxed(jnp.float32(amount))
        slope = jax.grad(
            lambda image, relaxed=relaxed: jnp.sum((relaxed(image) - code) ** 2)
        )(start)
        size = np.linalg.norm(slope, axis=-1, keepdims=True)
        shown = np.sqrt(size / np.quantile(size, 0.99))
        cells.append(Cell(shown, f"gradient, {caption}"))
    return [Row("AlexNet's pool5", cells)]


def random_views() -> list[Row]:
    """What the representation is given of an image under preset natural."""
    drawn = views.Views()
    z = 255 * photograph() - 128
    margin = (drawn.canvas_shape(z.shape)[0] - z.shape[0]) // 2
    canvas = jnp.pad(z, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    cells = []
    for key in jax.random.split(jax.random.key(0), 5):
        view = views.draw(key, drawn, jnp.float32(1), z.shape)
        cells.append(Cell(np.asarray(views.show(view, drawn, canvas) + 128) / 255, ""))
    return [Row("Five views of one image", cells)]


def preimages() -> list[Row]:
    """Images with nearly the same code, their mean and their deviation."""
    phi = invjax.representation("alexnet/pool5")
    code = phi(jnp.asarray(photograph()))
    found = invjax.invert_batch(
        jnp.stack([lane_key(start) for start in range(3)]),
        jnp.stack([code] * 3),
        phi,
        num_steps=STEPS,
        preset="natural",
    ).image
    cells = [
        Cell(np.asarray(image), f"start {start}") for start, image in enumerate(found)
    ]
    deviation = np.linalg.norm(np.std(found, axis=0), axis=-1, keepdims=True)
    cells += [
        Cell(np.asarray(jnp.mean(found, axis=0)), "mean"),
        Cell(deviation / deviation.max(), "deviation"),
    ]
    return [Row("AlexNet's pool5, three starts", cells)]


PICTURES: dict[str, Callable[[], list[Row]]] = {
    "data_term": data_term,
    "total_variation": total_variation,
    "alpha_norm": alpha_norm,
    "relaxed_derivatives": relaxed_derivatives,
    "views": random_views,
    "preimages": preimages,
}


def main(names: list[str]) -> None:
    """Writes the pictures of these names, or all."""
    for name in names or PICTURES:
        sheet = contact_sheet(PICTURES[name](), cell_size=CELL)
        FOLDER.mkdir(exist_ok=True)
        sheet.save(FOLDER / f"{name}.jpg", quality=85)
        print(FOLDER / f"{name}.jpg")


if __name__ == "__main__":
    main(sys.argv[1:])
