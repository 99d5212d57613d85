"""The paper's shallow representations: their arithmetic, and the registry's entries.

Values are compared with a literal float64 version of the paper's layers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax import callables
from invjax.representations import hog, paper
from invjax.representations.hog import HogConfig
from invjax.representations.paper import SHALLOW

FUNCTIONS = {
    "hog": lambda image: paper.published_hog(image, assignment="hard"),
    "hogb": lambda image: paper.published_hog(image, assignment="bilinear"),
    "dsift": paper.published_dsift,
}


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(size=shape)
    # Every fourth column repeated: exact zeros and vertical gradients among the rest.
    values[:, 3::4] = values[:, 1::4][:, : values[:, 3::4].shape[1]]
    return values.astype(np.float32)


def correlate(planes, filters, *, stride=1, pad=0):
    """planes [h, w], or [h, w, c] with filters [k, k, c, n]; zero padding."""
    planes = np.pad(planes, ((pad, pad), (pad, pad), (0, 0)))
    k = filters.shape[0]
    rows = (planes.shape[0] - k) // stride + 1
    columns = (planes.shape[1] - k) // stride + 1
    out = np.zeros((rows, columns, filters.shape[-1]))
    for i in range(k):
        for j in range(k):
            window = planes[i : i + stride * rows : stride]
            window = window[:rows, j : j + stride * columns : stride][:, :columns]
            out += window @ filters[i, j]
    return out


def literal_maps(image, num_bins, assignment, pad):
    angles = 2 * np.pi * np.arange(num_bins) / num_bins
    dx = np.zeros((3, 3))
    dx[1] = -0.5, 0, 0.5
    filters = np.cos(angles) * dx[..., None] + np.sin(angles) * dx.T[..., None]
    centred = (255 * image.astype(np.float64) - 128)[..., None]
    d = correlate(centred, filters[:, :, None], pad=pad)
    norm = np.sqrt((d**2).sum(-1, keepdims=True) / (num_bins / 2))
    if assignment == "hard":
        # To 1e-9, so that rounding breaks no tie.
        weights = np.eye(num_bins)[np.round(d, 9).argmax(-1)]
    else:
        cosine = np.clip(d / np.maximum(norm, 1e-10), -1, 1)
        weights = np.maximum(0, 1 - num_bins / (2 * np.pi) * np.arccos(cosine))
    return norm * weights


def literal_pooling(maps, size, pad):
    taps = 1 - np.abs((np.arange(1, 2 * size + 1) - (2 * size + 1) / 2) / size)
    one = np.outer(taps, taps)[..., None, None] * np.eye(maps.shape[-1])
    return correlate(maps, one, stride=size, pad=pad)


def literal_hog(image, assignment, cell_size=8):
    maps = literal_maps(image, 18, assignment, pad=1)
    cells = literal_pooling(maps, cell_size, pad=cell_size // 2)
    cells = np.concatenate([cells, cells[..., :9] + cells[..., 9:]], axis=-1)
    rows, columns, _ = cells.shape
    out = np.zeros_like(cells)
    for i in range(rows - 1):
        for j in range(columns - 1):
            block = cells[i : i + 2, j : j + 2]
            norm = max(np.sqrt((block[..., 18:] ** 2).sum()), 1e-6)
            out[i : i + 2, j : j + 2] += 0.5 * np.minimum(block / norm, 0.2)
    return out


def literal_dsift(image, bin_size=5):
    cells = literal_pooling(literal_maps(image, 8, "bilinear", pad=0), bin_size, pad=0)
    offset = np.arange(1, 5) - 2.5
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    rows, columns = ((n - 4) // 3 + 1 for n in cells.shape[:2])
    out = np.zeros((rows, columns, 128))
    for i in range(rows):
        for j in range(columns):
            block = window[..., None] * cells[3 * i : 3 * i + 4, 3 * j : 3 * j + 4]
            out[i, j] = block.reshape(-1) / np.sqrt(1e-6 + (block**2).sum())
    return np.minimum(out, 0.2)


@pytest.mark.parametrize("assignment", ["hard", "bilinear"])
@pytest.mark.parametrize(("shape", "cell_size"), [((43, 58), 8), ((31, 30), 6)])
def test_hog_is_the_papers(assignment, shape, cell_size):
    image = noise(*shape)
    expected = literal_hog(image, assignment, cell_size)
    options = {"assignment": assignment, "cell_size": cell_size}
    code = jax.jit(lambda x: paper.published_hog(x, **options))(image)
    np.testing.assert_allclose(code, expected, atol=2e-6)


@pytest.mark.parametrize(("shape", "bin_size"), [((46, 61), 5), ((60, 44), 8)])
def test_dsift_is_the_papers(shape, bin_size):
    image = noise(*shape)
    expected = literal_dsift(image, bin_size)
    code = jax.jit(lambda x: paper.published_dsift(x, bin_size=bin_size))(image)
    np.testing.assert_allclose(code, expected, atol=2e-6)


def test_shapes_of_the_paper():
    image = jax.ShapeDtypeStruct((500, 333), jnp.float32)
    assert jax.eval_shape(FUNCTIONS["hog"], image).shape == (62, 41, 27)
    assert jax.eval_shape(FUNCTIONS["dsift"], image).shape == (32, 21, 128)
    image = jax.ShapeDtypeStruct((128, 96), jnp.float32)
    assert jax.eval_shape(FUNCTIONS["hogb"], image).shape == (16, 12, 27)


@pytest.mark.parametrize(
    ("assignment", "tolerance"), [("hard", 1e-6), ("bilinear", 1e-4)]
)
def test_hog_agrees_with_vlfeat_away_from_the_border(assignment, tolerance):
    image = noise(64, 72)
    config = HogConfig(assignment=assignment)
    code = jax.jit(FUNCTIONS["hog" if assignment == "hard" else "hogb"])(image)
    reference = jax.jit(hog.hog, static_argnames="config")(255 * image, config=config)
    reference = reference[..., :27]
    difference = np.abs(np.asarray(code - reference))
    assert difference[2:-2, 2:-2].max() < tolerance
    assert difference.max() > 1e-2


@pytest.mark.parametrize("name", ["hogb", "dsift"])
def test_colour_is_read_as_grey(name):
    image = noise(48, 50, 3)
    grey = image @ np.array([0.2989, 0.5870, 0.1140], np.float32)
    phi = jax.jit(FUNCTIONS[name])
    np.testing.assert_allclose(phi(image), phi(grey), atol=5e-3)
    np.testing.assert_array_equal(phi(grey), phi(grey[..., None]))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_jit_and_vmap_change_rounding_only(name):
    phi = FUNCTIONS[name]
    images = jnp.stack([noise(46, 50, seed=seed) for seed in range(3)])
    jitted = jax.jit(phi)
    loop = np.stack([jitted(image) for image in images])
    np.testing.assert_allclose(jax.jit(jax.vmap(phi))(images), loop, atol=2e-6)
    if name == "hogb":  # the others are made of the same pieces
        np.testing.assert_allclose(phi(images[0]), loop[0], atol=2e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_gradient_is_finite_everywhere(name):
    y, x = np.mgrid[:48, :48].astype(np.float32)
    images = {
        "flat": np.full_like(x, 0.2),
        "mid-grey": np.full_like(x, 128 / 255),
        "half flat": np.where(x < 24, np.float32(0.5), noise(48, 48)),
        "ramp": x / 48,
        "step": (y > 23).astype(np.float32),
    }

    def energy(image):
        return jnp.sum((FUNCTIONS[name](image) - 0.1) ** 2)

    gradient_fn = jax.jit(jax.grad(energy))
    for kind, image in images.items():
        gradient = gradient_fn(image)
        assert np.isfinite(gradient).all(), kind
        assert np.any(gradient) or kind != "half flat"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_directional_derivative(name):
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(1).uniform(size=(43, 45)))
        direction = jnp.asarray(np.random.default_rng(2).normal(size=(43, 45)))

        @jax.jit
        def energy(image):
            code = FUNCTIONS[name](image)
            assert code.dtype == jnp.float64
            return jnp.sum((code - 0.05) ** 2)

        step = 1e-7
        ahead, behind = (energy(image + s * direction) for s in (step, -step))
        expected = (ahead - behind) / (2 * step)
        actual = jnp.vdot(jax.jit(jax.grad(energy))(image), direction)
        np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_unfit_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 16"):
        paper.published_hog(noise(15, 40), assignment="hard")
    with pytest.raises(ValueError, match="even"):
        paper.published_hog(noise(40, 40), assignment="hard", cell_size=7)
    with pytest.raises(ValueError, match="at least 27"):
        paper.published_dsift(noise(26, 40))
    with pytest.raises(ValueError, match="bin_size"):
        paper.published_dsift(noise(26, 40), bin_size=0)


@pytest.fixture(scope="module")
def image():
    return jax.random.uniform(jax.random.key(0), (98, 130, 1))


@pytest.mark.parametrize("name", SHALLOW)
def test_the_list_knows_their_geometry(name: str):
    rows = {row.name: row for row in invjax.list_representations()}
    phi = invjax.representation(name)
    assert rows[name].code_shape == callables.code_shape(phi, (224, 224, 1))
    assert rows[name].available


@pytest.mark.parametrize("name", SHALLOW)
def test_a_feature_depends_on_its_receptive_field(name: str, image):
    phi = SHALLOW[name]
    code = phi(image)
    row, column = code.shape[0] // 2, code.shape[1] // 2
    weights = jax.random.normal(jax.random.key(1), code.shape[-1:])

    def feature(image):
        return jnp.sum(weights * phi(image)[row, column])

    support = np.argwhere(np.abs(jax.grad(feature)(image)[..., 0]) > 0)
    sides = np.ptp(support, axis=0) + 1
    field = phi.geometry.receptive_field
    assert np.all(sides <= field) and np.all(sides >= field - 2), sides


@pytest.mark.parametrize("name", SHALLOW)
@pytest.mark.parametrize("shape", [(3, 4), (5, 3)])
def test_the_smallest_image_of_a_code(name: str, shape: tuple[int, int]):
    phi = SHALLOW[name]
    height, width, channels = phi.smallest_image((*shape, 1))
    assert callables.code_shape(phi, (height, width, channels))[:2] == shape
    for smaller in ((height - 1, width, 1), (height, width - 1, 1)):
        assert callables.code_shape(phi, smaller)[:2] != shape


def test_they_are_arguments_of_compiled_functions(image):
    apply = jax.jit(lambda phi, image: phi(image))
    for phi in SHALLOW.values():
        np.testing.assert_allclose(apply(phi, image), phi(image), atol=1e-4)


def test_grey_of_colour_is_the_papers():
    photograph = jax.random.uniform(jax.random.key(2), (64, 64, 3))
    grey = photograph @ jnp.array([[0.2989], [0.5870], [0.1140]])
    phi = invjax.representation("hogb")
    np.testing.assert_allclose(phi(photograph), phi(grey), atol=1e-4)


def test_inverts_to_a_grey_image(image, key):
    phi = invjax.representation("dsift")
    code = phi(image)
    result = invjax.invert(key, code, phi, image_shape=image.shape, num_steps=100)
    error = jnp.linalg.norm(phi(result.image) - code) / jnp.linalg.norm(code)
    assert result.image.shape == image.shape
    assert float(error) < 0.3
