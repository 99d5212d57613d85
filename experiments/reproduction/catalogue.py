"""Which studies a reproduction has, and the flags that make each small or whole."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Entry:
    """A run of a study, with the flags that make it small or whole.

    Attributes:
      name: name that --studies takes, and that its folder has.
      about: what it shows, for a heading.
      small: flags for a run of minutes on two cores.
      minutes: about how long that run takes.
      full: flags for a run as large as that of the results in experiments/results/.
      module: module to run; by default experiments.<name>.
    """

    name: str
    about: str
    small: tuple[str, ...]
    minutes: float
    full: tuple[str, ...] = ()
    module: str = ""

    @property
    def binary(self) -> str:
        """Module that `python -m` runs."""
        return self.module or f"experiments.{self.name}"

    def arguments(self, scale: str) -> tuple[str, ...]:
        """Flags of a run at a scale: "smoke", "small" or "full"."""
        if scale == "smoke":
            return ("--smoke", *self.full)
        return self.small if scale == "small" else self.full


_TWO = "--images=sample:chelsea,sample:coffee"
_STEPS = "--num_steps=200"
_VGG16 = ("--network=vgg16", "--layers=relu3_3,relu4_3,relu5_3", "--tv_weight=5")
_NATURAL = "--preset=natural"
_LOGITS = "--representations=efficientnet_lite0/logits"
_CLASSES = (
    "--units=tree frog,cheeseburger,flamingo,goldfish,lemon,tabby,strawberry,"
    "bald eagle,dalmatian,daisy"
)
# Weights at which the samples of one layer or another come near the error.
_MATCHED = ("--tv_weight=2,5,12,50", "--target_error=0.2", "--error_band=0.15")
_LITE0_CODES = "--representations=efficientnet_lite0/pooled,efficientnet_lite0/logits"

STUDIES = (
    Entry(
        "shallow_table",
        "HOG, HOGb and dense SIFT (CVPR 2015, Table 1 and Figure 3)",
        (_TWO, "--num_steps=300"),
        1,
        ("--tv_weight=0.5,5",),
    ),
    Entry(
        "layer_progression",
        "Every layer of a network (CVPR 2015, Table 3 and Figure 6)",
        (_TWO, "--num_steps=150"),
        6,
    ),
    Entry(
        "layers_lite0",
        "Two deep codes of EfficientNet-Lite0, in place of the paper's fc6 to fc8",
        ("--network=efficientnet_lite0", "--layers=logits", _TWO, "--num_steps=100"),
        3,
        ("--network=efficientnet_lite0", "--layers=pooled,logits", _STEPS),
        module="experiments.layer_progression",
    ),
    Entry(
        "layers_vgg16",
        "Three depths of VGG-16 (IJCV 2016)",
        (*_VGG16, "--images=sample:chelsea", "--num_steps=60"),
        2,
        (*_VGG16, _TWO, _STEPS),
        module="experiments.layer_progression",
    ),
    Entry(
        "recognition",
        "Whether one recognises what deep codes give (CVPR 2015, Figures 6 and 7)",
        (_LOGITS, _TWO, "--num_steps=150"),
        2,
        (_LITE0_CODES, "--presets=fast,natural,ijcv2016"),
    ),
    Entry(
        "regulariser_sweep",
        "What the total variation does (CVPR 2015, Figures 2, 4 and 8)",
        (
            "--images=sample:chelsea",
            "--representations=alexnet/pool1,alexnet/pool5",
            _STEPS,
        ),
        4,
        ("--representations=alexnet/pool1,hog,alexnet/pool5", _STEPS),
    ),
    Entry(
        "invariance",
        "What codes leave open (CVPR 2015, Figures 1, 7 and 11)",
        (
            "--images=sample:chelsea,sample:coffee,sample:abstract",
            "--representations=alexnet/relu2,alexnet/pool5",
            "--num_starts=3",
            "--num_steps=150",
        ),
        2,
        (_NATURAL,),
    ),
    Entry(
        "locality",
        "What a patch of a code brings back (CVPR 2015, Figure 9)",
        (
            "--images=sample:chelsea,sample:rocket",
            "--representations=alexnet/relu1,alexnet/relu2,alexnet/relu3,alexnet/relu5",
            "--num_steps=150",
        ),
        2,
        (_STEPS,),
    ),
    Entry(
        "channel_groups",
        "What two groups of channels represent (CVPR 2015, Figure 10)",
        ("--images=sample:chelsea,sample:abstract", "--num_steps=150"),
        2,
        (_STEPS,),
    ),
    Entry(
        "naturalness",
        "Whether reconstructions look like photographs (IJCV 2016)",
        (
            _TWO,
            "--representations=alexnet/pool1,alexnet/relu3,alexnet/pool5",
            "--num_steps=150",
        ),
        3,
        (_STEPS,),
    ),
    Entry(
        "maximise",
        "What excites a neuron most (IJCV 2016)",
        (
            "--representations=alexnet/conv2,alexnet/conv3,alexnet/conv5",
            "--units=0,1,2,3",
            "--num_starts=1",
        ),
        2,
    ),
    Entry(
        "classes",
        "What excites a class most (IJCV 2016)",
        (_LOGITS, _NATURAL, "--units=tree frog,daisy", "--num_starts=1"),
        2,
        (_LOGITS, _NATURAL, _CLASSES, "--num_starts=1"),
        module="experiments.maximise",
    ),
    Entry(
        "caricature",
        "Caricatures: a layer's response exaggerated (IJCV 2016)",
        (_TWO, "--num_steps=150"),
        1,
    ),
    Entry(
        "sample",
        "The set of images that have one code: AlexNet",
        (_TWO, "--num_samples=4", "--num_steps=100"),
        2,
        ("--num_samples=16", _STEPS, *_MATCHED, "--geometry"),
    ),
    Entry(
        "sample_lite0",
        "The set of images that have one code: EfficientNet-Lite0",
        (_LITE0_CODES, "--images=sample:chelsea", "--num_samples=4", "--num_steps=60"),
        3,
        (_LITE0_CODES, _NATURAL, "--num_samples=8"),
        module="experiments.sample",
    ),
    Entry(
        "sample_vgg16",
        "The set of images that have one code: VGG-16",
        (
            "--representations=vgg16/relu4_3",
            "--images=sample:chelsea",
            "--num_samples=2",
            "--num_steps=60",
        ),
        2,
        ("--representations=vgg16/relu4_3", "--num_samples=4", _STEPS),
        module="experiments.sample",
    ),
    Entry(
        "sample_repulsion",
        "The set of images that have one code: samples that keep apart",
        ("--method=repulsion", "--num_samples=4", "--num_steps=100"),
        3,
        ("--method=repulsion", "--num_samples=4", _STEPS),
        module="experiments.sample",
    ),
)
"""In the order of the report."""
