"""A run from a script of one's own: settings by hand, and no flags."""

import json
import os
import pathlib
import subprocess
import sys

from invjax.images import reading
from tests.runs import made_up

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = """
import sys

from invjax.runs import lanes, loading, runner
from invjax.runs.folder import RunFolder
from invjax.runs.settings import Settings

images, workdir = sys.argv[1:]
settings = Settings(
    images=images,
    code=None,
    representations=("hogb",),
    preset="fast",
    num_steps=2,
    num_starts=2,
    tv_weight=None,
    alpha_weight=None,
    tolerance=None,
    dead_relu=None,
    image_size=None,
    resize="crop",
    batch_size=1,
    compute_dtype="float32",
    weights_dir=None,
    save_arrays=False,
    seed=0,
    smoke=False,
)
groups = loading.load_groups(settings)
planned = lanes.plan(groups, settings)
folder = RunFolder.claim(workdir, overwrite=False)
digests = loading.weights_digests(groups)
for lane in runner.run(planned, settings, folder, weights=digests):
    assert lane.record.relative_error < 2
    assert lane.image.shape == (32, 32, 1)

assert not [name for name in sys.modules if name.startswith("invjax.commands")]
# Others may import absl, but nobody has defined or parsed a flag of ours.
absl_flags = sys.modules.get("absl.flags")
if absl_flags is not None:
    assert not absl_flags.FLAGS.is_parsed() and "workdir" not in absl_flags.FLAGS
"""


def test_a_script_needs_no_flags(tmp_path: pathlib.Path):
    for name, image in made_up.images().items():
        reading.write_png(tmp_path / "mine" / f"{name}.png", image)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "mine"), str(tmp_path / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(line["image"], line["start"]) for line in found] == [
        ("one", 0),
        ("one", 1),
        ("two", 0),
        ("two", 1),
    ]
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["settings"]["representations"] == ["hogb"]
    assert config["weights"] == {"hogb": ""}
