"""The table of constants: schedules, phases, starts, and weights by depth."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

import invjax
from invjax.inversion import objective, presets
from invjax.inversion.lane import Phase, Program
from invjax.inversion.objective import SIGMA
from invjax.inversion.presets import Preset
from invjax.inversion.solvers import Adam, DecayedAdaGrad, PyramidAdam
from invjax.networks import NETWORKS, layers
from invjax.networks.layers import Geometry
from invjax.representations.cnn import CnnRepresentation


def _phases(preset: Preset, num_steps: int, *, jitter: int = 4) -> tuple[Phase, ...]:
    """The phases of a descent whose phases with jitter have 4 places."""
    program = Program(preset.solver, (32, 32, 3), form=preset.form, start=preset.start)
    return preset.phases(program, num_steps, jitter=jitter)


def _named(name: str, stride: int | None = None) -> types.SimpleNamespace:
    """What the table depends on: a representation's name and geometry."""
    if stride is None:
        return types.SimpleNamespace(name=name)
    shape = (4, 4, 8)
    return types.SimpleNamespace(name=name, geometry=Geometry(name, shape, 1, stride))


def test_schedules_of_the_presets():
    paper = presets.PRESETS["cvpr2015"].rate_scale(400)
    assert [float(paper[i]) for i in (0, 99, 100, 299, 300, 399)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    cosine = presets.PRESETS["fast"].rate_scale(400)
    assert cosine[0] == 1 and cosine[200] == pytest.approx(0.5) and cosine[-1] > 0
    assert np.all(np.diff(cosine) < 0)
    for preset in presets.PRESETS.values():
        assert preset.rate_scale(5).shape == (5,)


def test_the_shallow_schedule_of_the_paper():
    hog, hogb = invjax.representation("hog"), invjax.representation("hogb")
    paper = presets.find("cvpr2015", phi=hog)
    assert paper.num_steps == 800
    scale = paper.rate_scale(800)
    assert [float(scale[i]) for i in (0, 199, 200, 400, 600, 799)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001, 0.001]
    )
    assert presets.find("fast", phi=hog).solver == PyramidAdam(0.0, 0.999)
    assert presets.find("fast", phi=hogb).solver == PyramidAdam()
    assert presets.tv_weight(hogb) == 0.5


def test_starts_of_the_presets():
    paper, fast = presets.PRESETS["cvpr2015"], presets.PRESETS["fast"]
    assert paper.start_scale((64, 64, 1)) == SIGMA
    assert fast.start_scale((224, 224, 3)) == pytest.approx(0.2 * SIGMA)
    rms = fast.start_scale((64, 64, 1)) / 64
    assert rms == pytest.approx(13.97, abs=0.01)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet/conv1", 0.5),
        ("alexnet/pool1", 0.5),
        ("alexnet/relu2", 0.5),
        ("alexnet/pool2", 5),
        ("caffenet/norm2", 5),
        ("caffenet/mpool1", 0.5),
        ("alexnet/relu4", 5),
        ("alexnet/conv5", 50),
        ("alexnet/fc8", 50),
        ("vgg16/relu2_2", 0.5),
        ("vgg16/pool2", 0.5),
        ("vgg16/relu3_3", 5),
        ("vgg19/conv4_4", 5),
        ("vgg16/relu5_3", 50),
        ("vgg16/fc6", 50),
        ("", 5),
    ],
)
def test_tv_weight_follows_the_depth(name: str, expected: float):
    phi = _named(name)
    assert presets.tv_weight(phi) == expected
    assert presets.tv_weight(lambda image: image) == 5


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("alexnet/conv1", 300),
        ("caffenet/norm2", 300),
        ("alexnet/relu3", 300),
        ("alexnet/conv4", 100),
        ("caffe_alexnet/relu4", 100),
        ("alexnet/conv5", 20),
        ("vgg_m/relu5", 20),
        ("alexnet/pool5", 1),
        ("caffenet/mpool5", 1),
        ("alexnet/fc6", 1),
        ("caffenet/fc8", 1),
        ("vgg16/relu1_1", 300),
        ("vgg16/pool3", 300),
        ("vgg19/conv4_4", 100),
        ("vgg16/pool4", 100),
        ("vgg16/relu5_3", 20),
        ("vgg16/pool5", 1),
        ("vgg16/relu7", 1),
    ],
)
def test_the_data_terms_weight_follows_the_depth(name: str, expected: float):
    phi = _named(name)
    assert presets.data_weight(phi) == expected
    for data_term in (objective.activation_maximisation, objective.caricature):
        assert presets.data_weight(phi, data_term=data_term) == 1


@pytest.mark.parametrize(
    ("stride", "expected"), [(4, 300), (8, 300), (16, 100), (32, 1)]
)
def test_the_data_terms_weight_of_other_tables_follows_the_stride(stride, expected):
    assert presets.data_weight(_named("resnet50/layer1", stride)) == expected


def _cut(name: str) -> CnnRepresentation:
    """A network cut at a layer, without weights."""
    network, _, layer = name.partition("/")
    return CnnRepresentation(
        params={},
        centre=jnp.zeros(3),
        scale=jnp.ones(3),
        name=name,
        layers=NETWORKS[network].until(layer),
        image_shape=NETWORKS[network].image_shape,
    )


@pytest.mark.parametrize(
    ("name", "tv_weight", "data_weight", "jitter"),
    [
        ("resnet18/stem", 0.5, 300, 1),
        ("mobilenet_v2/block4", 5, 300, 2),
        ("convnext_tiny/block2", 0.5, 300, 1),
        ("convnext_tiny/block16", 50, 1, 8),
        ("squeezenet1_1/fire9", 5, 100, 4),
        # Codes without places.
        ("squeezenet1_1/logits", 50, 1, 8),
        ("mobilenet_v3_small/pooled", 50, 1, 8),
        # Tokens of 16, 8 and 32 px, and the class token.
        ("vit_tiny/block3", 5, 100, 4),
        ("dino_vits8/attention11", 5, 300, 2),
        ("clip_vit_b32/norm", 50, 1, 8),
        ("dino_vits8/pooled", 50, 1, 8),
        ("vit_tiny/logits", 50, 1, 8),
    ],
)
def test_other_networks_follow_the_stride(
    name: str, tv_weight: float, data_weight: float, jitter: int
) -> None:
    phi = _cut(name)
    assert presets.tv_weight(phi) == tv_weight
    assert presets.data_weight(phi) == data_weight
    assert presets.jitter(phi) == jitter


@pytest.mark.parametrize(
    ("name", "has_views"),
    [
        ("vit_tiny/block3", False),
        ("vit_tiny/patches", False),
        ("vit_tiny/pooled", True),
        ("clip_vit_b32/projected", True),
        ("convnext_tiny/stem", False),
        ("squeezenet1_1/logits", True),
    ],
)
def test_natural_shows_views_where_a_code_has_no_places(
    name: str, has_views: bool
) -> None:
    phi = _cut(name)
    preset = presets.find("natural", phi=phi)
    assert (preset.views is not None) == has_views
    share = 1 if has_views else 0.5
    weight = presets.tv_weight(phi, preset="natural")
    assert weight == share * presets.NATURAL_TV_WEIGHT


def test_deep_networks_have_the_smaller_rate() -> None:
    """Attentions and layers at every token count, normalisations do not."""
    rates = {
        name: presets.find("fast", phi=_cut(name)).learning_rate
        for name in (
            "vit_tiny/patches",
            "vit_tiny/block0",
            "vit_tiny/attention1",
            "vit_tiny/block1",
            "mobilenet_v3_small/block1",
        )
    }
    assert list(rates.values()) == [4, 4, 4, 2, 4]


def test_the_data_terms_weight_without_a_depth_or_stride():
    for name in ("hog", "hogb", "dsift", "dsift8"):
        assert presets.data_weight(invjax.representation(name)) == 100
    assert presets.data_weight(lambda image: image) == 100


def test_jitter_is_a_quarter_of_the_stride():
    network = NETWORKS["alexnet"]
    found = {
        row.name: presets.jitter(_named(row.name, row.stride))
        for row in layers.geometry(network.layers, network.image_shape)
    }
    assert found["conv1"] == found["relu1"] == 1
    assert found["pool1"] == found["relu2"] == 2
    assert found["pool2"] == found["relu5"] == 4
    assert found["pool5"] == found["fc8"] == 8
    # MATLAB's round: halves away from zero.
    strides = {1: 1, 2: 1, 6: 2, 10: 3, 14: 4}
    for stride, expected in strides.items():
        assert presets.jitter(_named("", stride)) == expected
    assert presets.jitter(lambda image: image) == 1


def test_the_ijcv_papers_constants():
    paper = presets.PRESETS["ijcv2016"]
    assert paper.solver == DecayedAdaGrad(0.9)
    assert paper.num_steps == 350
    assert paper.rate((227, 227, 3)) == pytest.approx(227 * 227 * 53.3333, rel=1e-5)
    assert paper.start_scale((227, 227, 3)) == pytest.approx(80 / np.sqrt(3))
    assert paper.start_scale((50, 30, 1)) == paper.start_scale((227, 227, 3))
    assert presets.IJCV_BOUND == 160
    assert pytest.approx(12.3077, rel=1e-5) == objective.IJCV_GRADIENT
    jittered, still = _phases(paper, 350)
    assert jittered.program.jitter == 4 and still.program.jitter == 1
    np.testing.assert_array_equal(jittered.pace.rate_scale, np.ones(300, np.float32))
    np.testing.assert_array_equal(still.pace.rate_scale, np.full(50, 0.1, np.float32))


def test_a_shorter_run_shortens_every_phase():
    paper = presets.PRESETS["ijcv2016"]
    for num_steps, lengths in {70: [60, 10], 7: [6, 1], 5: [4, 1], 1: [1]}.items():
        phases = _phases(paper, num_steps)
        assert [phase.num_steps for phase in phases] == lengths
    for name in ("cvpr2015", "fast", "adam"):
        preset = presets.PRESETS[name]
        (phase,) = _phases(preset, 40)
        np.testing.assert_array_equal(phase.pace.rate_scale, preset.rate_scale(40))
        assert phase.program.jitter == 1


def test_where_the_ijcv_paper_has_one_stage():
    dsift = presets.find("ijcv2016", phi=invjax.representation("dsift8"))
    (shallow,) = _phases(dsift, 300)
    assert shallow.program.jitter == 1 and np.all(shallow.pace.rate_scale == 1)
    for data_term in (objective.activation_maximisation, objective.caricature):
        linear = presets.find("ijcv2016", data_term=data_term)
        assert linear.num_steps == 300
        (phase,) = _phases(linear, 300)
        assert phase.program.jitter == 4 and np.all(phase.pace.rate_scale == 1)
        assert presets.find("fast", data_term=data_term) == presets.PRESETS["fast"]


def test_adam_is_the_plain_one():
    adam = presets.PRESETS["adam"]
    assert adam.solver == Adam(0.9, 0.999, 1e-8)
    assert adam.num_steps == 400 and adam.rate((224, 224, 3)) == 8
    assert adam.start_scale((64, 64, 3)) == SIGMA
