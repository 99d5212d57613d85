"""Representations that are no pure functions are refused, and stay as they were."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

import invjax
from invjax import callables
from invjax.inversion import api
from invjax.preimages import mcmc, repulsion

SHAPE = (12, 12, 3)
IMAGE = np.random.default_rng(1).uniform(size=SHAPE).astype(np.float32)


class Net(nnx.Module):
    def __init__(self, *, norm: bool = True, drop: bool = True) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (5, 5), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs) if norm else None
        self.drop = nnx.Dropout(0.5, rngs=rngs) if drop else None

    def __call__(self, image):
        x = self.conv(image[None])
        x = x if self.norm is None else self.norm(x)
        return x if self.drop is None else self.drop(nnx.relu(x))


class Linen(linen.Module):
    train: bool = False

    @linen.compact
    def __call__(self, image):
        x = linen.Conv(4, (3, 3))(image[None])
        return linen.BatchNorm(use_running_average=not self.train)(x)


VARIABLES = Linen().init(jax.random.key(0), IMAGE)


@jax.tree_util.register_pytree_node_class
class Module:
    """A pytree of weights whose calls do something to it."""

    def __init__(self, change, weight=2.0, count=0):
        self.change, self.weight, self.count = change, jnp.float32(weight), count

    def __call__(self, image):
        self.change(self, image)
        return self.weight * image

    def tree_flatten(self):
        return (self.weight,), (self.change, self.count)

    @classmethod
    def tree_unflatten(cls, static, leaves):
        new = object.__new__(cls)
        (new.weight,), (new.change, new.count) = leaves, static
        return new


class Plain:
    """An object of one's own that is no pytree."""

    def __init__(self, change):
        self.change, self.count, self.cache = change, 0, []
        self.buffer, self.table = np.zeros(3), {}

    def __call__(self, image):
        self.change(self, image)
        return 2 * image

    def encode(self, image):
        return self(image)


def nothing(module, image):
    del module, image


def count(module, image):
    del image
    module.count += 1


def drift(module, image):
    module.weight = module.weight + 0.1 * image.mean()


def keep(module, image):
    module.cache.append(image)


def write(module, image):
    del image
    module.buffer[0] += 1


def note(module, image):
    module.table[len(module.table)] = image.shape


def extend(module, image):
    del image
    setattr(module, f"part{len(vars(module))}", 1.0)


def make_once(module, image):
    del image
    if not hasattr(module, "made"):
        module.made = np.ones(3)


def noisy(image, scale=1.0):
    return image + scale * np.float32(NUMBERS.normal())


def numbered(image):
    return image * next(COUNTER)


def cropped(image):
    start = int(NUMBERS.integers(5))
    return image[start : start + 4]


def grainy(image):
    return image + NUMBERS.normal(size=SHAPE).astype(np.float32)


def called_back(image):
    def add(x):
        return np.asarray(x + NUMBERS.normal(), np.float32)

    shape = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    return jax.pure_callback(add, shape, image, vmap_method="sequential")


NUMBERS = np.random.default_rng(0)
COUNTER = iter(range(1, 10_000))


def trained(net):
    net.train()
    return net


CHANGING = {
    "nnx batch norm": (lambda: trained(Net(drop=False)), r"\(norm.mean, norm.var\)"),
    "nnx dropout": (lambda: trained(Net(norm=False)), r"\(drop.rngs.count\)"),
    "nnx in a closure": (
        lambda: functools.partial(lambda net, x: net(x), trained(Net())),
        r"changes itself when it is called",
    ),
    "linen bound": (lambda: Linen(train=True).bind(VARIABLES), r"\(mean\)"),
    "linen in a closure": (
        lambda: lambda image: Linen(train=True).apply(VARIABLES, image),
        r"\(mean\)",
    ),
    "pytree's leaf": (lambda: Module(drift), r"\("),
    "pytree's counter": (lambda: Module(count), "something that is no array"),
    "plain counter": (lambda: Plain(count), r"\(Plain.count\)"),
    "plain list": (lambda: Plain(keep), r"\(Plain.cache\)"),
    "plain array": (lambda: Plain(write), r"\(Plain.buffer\)"),
    "plain dict": (lambda: Plain(note), r"\(Plain.table\)"),
    "plain attribute": (lambda: Plain(extend), r"\(Plain.part"),
    "bound method": (lambda: Plain(count).encode, r"\(Plain.count\)"),
    "plain in a closure": (
        lambda: (lambda phi: lambda image: phi(image))(Plain(count)),
        r"\(Plain.count\)",
    ),
}

ANSWERING_TWICE = {
    "a number": noisy,
    "an array": grainy,
    "a counter": numbered,
    "a crop": cropped,
    "jit": jax.jit(noisy),
    "partial": functools.partial(noisy, scale=2.0),
    "Partial": jax.tree_util.Partial(noisy, scale=jnp.float32(2.0)),
    "Partial of jit": jax.tree_util.Partial(jax.jit(noisy)),
    "a callback": called_back,
}

EVALUATED = Net()
EVALUATED.eval()

PURE = {
    "function": lambda image: 2 * image,
    "jit": jax.jit(lambda image: 2 * image),
    "constant of NumPy": lambda image: image * IMAGE,
    "custom derivative": lambda image: jax.nn.relu6(image) + jax.nn.softplus(image),
    "fixed noise": lambda image: image + jax.random.normal(jax.random.key(0), SHAPE),
    "nnx": lambda image: EVALUATED(image),
    "Module": Module(nothing),
    "Plain": Plain(nothing),
    "made once": Plain(make_once),
    "linen bound": Linen().bind(VARIABLES),
    "callback": lambda image: jax.pure_callback(
        np.asarray, jax.ShapeDtypeStruct(SHAPE, jnp.float32), image
    ),
}


@pytest.mark.parametrize("case", CHANGING)
def test_a_representation_that_changes_itself_is_refused(case):
    make, words = CHANGING[case]
    phi = make()
    for _ in range(2):
        with pytest.raises(ValueError, match=words) as caught:
            callables.refuse_impure(phi, SHAPE)
        assert "\n" not in str(caught.value)
        assert "call model.eval(), or make it a pure" in str(caught.value)


@pytest.mark.parametrize("case", ANSWERING_TWICE)
def test_a_representation_that_answers_differently_is_refused(case):
    with pytest.raises(ValueError, match="two different codes of one image") as caught:
        callables.refuse_impure(ANSWERING_TWICE[case], SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", PURE)
def test_a_pure_function_is_accepted(case):
    callables.refuse_impure(PURE[case], SHAPE)


def test_the_users_model_stays_as_it_was():
    net = trained(Net())
    before = jax.tree.map(jnp.copy, jax.tree.leaves(nnx.state(net, nnx.BatchStat)))
    with pytest.raises(ValueError):
        callables.refuse_impure(net, SHAPE)
    after = jax.tree.leaves(nnx.state(net, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    for change in (count, keep, write, note, extend, make_once):
        plain = Plain(change)
        whole = copy.deepcopy(vars(plain))
        try:
            callables.refuse_impure(plain, SHAPE)
        except ValueError:
            assert change is not make_once
        np.testing.assert_equal(vars(plain), whole)


def test_a_model_is_looked_at_once_in_each_mode():
    traces: list[None] = []

    class Noted(Net):
        def __call__(self, image):
            traces.append(None)
            return super().__call__(image)

    net = Noted()
    net.eval()
    callables.refuse_impure(net, SHAPE)
    seen = len(traces)
    assert seen == 2
    callables.refuse_impure(net, SHAPE)
    assert len(traces) == seen
    with pytest.raises(ValueError, match="norm.mean"):
        callables.refuse_impure(trained(net), SHAPE)


@pytest.mark.parametrize(
    "function",
    [
        lambda image: np.sqrt(image),
        lambda image: image if image[0, 0, 0] > 0 else -image,
    ],
)
def test_what_cannot_be_traced_is_refused_in_one_line(function):
    with pytest.raises(TypeError, match="cannot be traced") as caught:
        callables.refuse_impure(function, SHAPE)
    assert "\n" not in str(caught.value)


def test_everything_that_takes_a_representation_looks():
    net, key = Net(), jax.random.key(0)
    net.eval()
    code = net(IMAGE)
    net.train()
    keys, codes, starts = key[None], code[None], IMAGE[None]
    calls = (
        lambda: invjax.invert(key, code, net, image_shape=SHAPE),
        lambda: invjax.invert_batch(keys, codes, net, image_shape=SHAPE),
        lambda: invjax.invert_stream(keys, codes, net, image_shape=SHAPE),
        lambda: api.estimate(code, net, image_shape=SHAPE),
        lambda: api.chunk_bytes(code, net, image_shape=SHAPE),
        lambda: mcmc.sample(keys, code, net, starts, temperature=1.0),
        lambda: repulsion.repel(jax.random.split(key, 2), code, net, image_shape=SHAPE),
    )
    for call in calls:
        with pytest.raises(ValueError, match="changes itself"):
            call()


def test_a_bound_module_is_inverted_with_its_variables():
    """Two bound modules of one kind differ by their variables alone."""
    doubled = jax.tree.map(lambda leaf: 2 * leaf, VARIABLES)
    for variables in (VARIABLES, doubled):
        bound = Linen().bind(variables)
        np.testing.assert_allclose(
            callables.encode(bound, IMAGE), bound(IMAGE), rtol=1e-5, atol=1e-6
        )
