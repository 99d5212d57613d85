"""Caricatures of IJCV 2016: photographs with more of what a layer sees in them.

    python -m experiments.caricature --workdir=runs/caricature

starts at four sample photographs and lets their codes at four layers of AlexNet grow:
-<p, Phi(x)> / |p|^2 with p = max(Phi(x0), 0), the paper's regularisers, jitter and 300
steps: about two minutes on two cores. Codes grow to 0.6, 0.9, 2.4 and 2.7 times
themselves at relu2, relu3, relu5 and pool5; a cat's face fills with spots, eyes and
smaller faces. EfficientNet-Lite0 calls none of them what it calls the original.

The released code has the photograph's code without the network's mean subtracted for p,
which is an oversight; here the mean is subtracted. Its C = 1 is kept: at shallow layers
the regularisers then outweigh the data term, and contrast is lost before anything is
exaggerated.

`--preset=fast` minimises the paper's objective by our solver; there R_alpha counts
channels singly. The other presets are refused.

Writes config.json, metrics.jsonl, originals/, reconstructions/, table.csv, table.md and
figure.png, whose contrast is stretched but for the originals. In the table:

    growth    <p, Phi(x)> / |p|^2; the original's is 1 where no value is negative
    cosine    between Phi(x) and p: below 1 where other things grow as well
    distance  from the original: RMS, grey levels, of clipped pictures; and SSIM
    label     whether EfficientNet-Lite0 calls the caricature what it calls the original
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments import ascents, studies
from experiments.ascents import Ascent, Outcome
from invjax.commands import binary, shared_flags
from invjax.images import reading, sources
from invjax.inversion import objective
from invjax.metrics import errors
from invjax.metrics.labels import Judge, guesses, logits
from invjax.metrics.lpips import Parameters
from invjax.report import contact_sheet
from invjax.report.contact_sheet import Cell, Row
from invjax.runs import loading
from invjax.runs.errors import Refusal
from invjax.runs.folder import RunFolder
from invjax.runs.lanes import Group
from invjax.runs.settings import Request, Settings

_IMAGES = ",".join(f"sample:{name}" for name in sources.SAMPLES)
_REPRESENTATIONS = ("alexnet/relu2", "alexnet/relu3", "alexnet/relu5", "alexnet/pool5")
_HEADER = (
    "representation",
    "steps",
    "growth",
    "cosine",
    "distance",
    "SSIM",
    "label kept",
    "failed",
)


def main() -> None:
    shared_flags.refuse_others(
        *("workdir", "overwrite", "dry_run", "smoke", "seed", "images"),
        *("representations", "preset", "num_steps", "image_size", "resize"),
        *("batch_size", "compute_dtype", "save_arrays"),
    )
    run(
        shared_flags.from_flags(
            images=_IMAGES, representations=_REPRESENTATIONS, preset="ijcv2016"
        )
    )


def run(request: Request) -> None:
    """Draws the caricatures and writes table and figure; with --dry_run says how long.

    Raises:
      Refusal and the package's own errors: bad input; nothing was written.
    """
    config = request.settings
    ascents.check_preset(config.preset)
    groups = loading.load_groups(config)
    check_positive(groups)
    planned = plan(groups, config)
    if request.dry_run:
        ascents.print_estimates(planned, config, data_term=objective.caricature)
        return
    judge = ascents.load_judge(config)
    distance = loading.load_judge(groups, config)
    assert request.workdir is not None
    folder = RunFolder.claim(request.workdir, overwrite=request.overwrite)
    folder.write_config(config.as_json(), loading.weights(groups))
    for target in groups[0].targets:
        assert target.original is not None
        path = folder.path / "originals" / f"{target.name}.png"
        reading.write_png(path, target.original)

    def write(finished: Sequence[Outcome]) -> None:
        rows = table_rows([outcome.record for outcome in finished])
        studies.publish(folder.path, _HEADER, rows, figure_rows(finished))

    ascents.run(
        planned,
        config,
        folder,
        data_term=objective.caricature,
        measure=functools.partial(measure, names_of(judge, planned), judge, distance),
        write=write,
    )


def check_positive(groups: Sequence[Group]) -> None:
    """Refuses codes without a positive value: nothing of them could grow.

    Raises:
      Refusal: naming the first.
    """
    for group in groups:
        for target in group.targets:
            if not np.sum(np.square(np.maximum(target.code, 0))) > 0:
                raise Refusal(
                    f"{target.name}: no value of its {group.name} code is positive, so "
                    "there is nothing to exaggerate"
                )


def plan(groups: Sequence[Group], config: Settings) -> list[Ascent]:
    """Every caricature of a run, layer by layer; two under --smoke."""
    planned = [
        Ascent(
            phi=group.phi,
            code=target.code,
            image_shape=target.image_shape,
            initial=target.original,
            start=0,
            facts={"image": target.name, "representation": group.name},
            path=f"{target.name}/{group.name.replace('/', '_')}",
        )
        for group in groups
        for target in group.targets
    ]
    return planned[:2] if config.smoke else planned


def names_of(judge: Judge | None, planned: Sequence[Ascent]) -> dict[str, str]:
    """Image -> what the judge calls the original; empty without a judge."""
    if judge is None:
        return {}
    originals = {
        ascent.facts["image"]: ascent.initial
        for ascent in planned
        if ascent.initial is not None
    }
    rows = logits(judge, list(originals.values()))
    return {
        image: guesses(row, count=1)[0].name
        for image, row in zip(originals, rows, strict=True)
    }


def measure(
    labels: Mapping[str, str],
    judge: Judge | None,
    distance: Parameters | None,
    ascent: Ascent,
    image: np.ndarray,
    code: np.ndarray,
) -> dict[str, Any]:
    """How far a code has grown, how far the picture is from its original, its label.

    Args:
      labels: of the originals, from `names_of`.
      judge: who named them.
      distance: of LPIPS; None for none.
      ascent: of the caricature.
      image: [h, w, c], not clipped.
      code: of the image.
    """
    original = ascent.initial
    assert original is not None
    positive = np.maximum(ascent.code, 0)
    product, square = float(np.vdot(positive, code)), float(np.vdot(positive, positive))
    norm = float(np.linalg.norm(code)) * np.sqrt(square)
    label = None
    if judge is not None:
        (row,) = logits(judge, [image])
        label = guesses(row, count=1)[0].name
    own = labels.get(ascent.facts["image"])
    change = np.clip(image, 0, 1) - original
    return {
        "growth": product / square,
        "cosine": product / norm if norm > 0 else None,
        "distance": 255 * float(np.sqrt(np.mean(np.square(change)))),
        "psnr": float(errors.psnr(image, original)),
        "ssim": float(errors.ssim(image, original)),
        "lpips": None
        if distance is None
        else float(errors.lpips_of(distance, image, original)),
        "label": label,
        "original_label": own,
        "is_label_kept": None if label is None else label == own,
    }


def table_rows(records: Sequence[dict[str, Any]]) -> list[list[str]]:
    """A row per representation: means and deviations over images."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["representation"], []).append(record)
    rows = []
    for name, mine in groups.items():
        done = [record for record in mine if record["status"] != "failed"]
        kept = [r["is_label_kept"] for r in done if r["is_label_kept"] is not None]
        rows.append(
            [
                name,
                str(max(record["num_steps"] for record in mine)),
                _mean(done, "growth", 2),
                _mean(done, "cosine", 2),
                _mean(done, "distance", 1),
                _mean(done, "ssim", 2),
                f"{sum(kept)} of {len(kept)}" if kept else "–",
                f"{len(mine) - len(done)} of {len(mine)}",
            ]
        )
    return rows


def figure_rows(finished: Sequence[Outcome]) -> list[Row]:
    """Originals on top, then a row of caricatures per representation."""
    originals: dict[str, Cell] = {}
    rows: dict[str, list[Cell]] = {}
    for outcome in finished:
        record = outcome.record
        name = record["image"]
        if name not in originals:
            assert outcome.ascent.initial is not None
            caption = f"{name}: {record['original_label'] or 'no label'}"
            originals[name] = Cell(outcome.ascent.initial, caption)
        picture, caption = None, "failed"
        if record["status"] != "failed":
            picture = contact_sheet.stretched(outcome.image)
            caption = f"growth {record['growth']:.1f}"
            caption += f": {record['label']}" if record["label"] else ""
        cell = Cell(picture, caption)
        rows.setdefault(record["representation"], []).append(cell)
    labelled = [Row(name, cells) for name, cells in rows.items()]
    return [Row("originals", list(originals.values())), *labelled]


def _mean(records: Sequence[dict[str, Any]], field: str, digits: int) -> str:
    values = [record[field] for record in records if record[field] is not None]
    if not values:
        return "–"
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


if __name__ == "__main__":
    binary.run(main)
