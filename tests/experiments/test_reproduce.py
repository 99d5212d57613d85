"""Studies run one after the other, resumed, and put into one report."""

import json
import pathlib
from collections.abc import Sequence

import numpy as np
import pytest
from absl.testing import flagsaver
from PIL import Image

from experiments import reproduce
from experiments.reproduction import claims, printed, report
from experiments.reproduction.catalogue import Entry
from experiments.reproduction.claims import Verdict
from invjax.runs.errors import Refusal

# A study as reproduce sees it: flags in, files out; and it counts its runs.
_TINY = """
import json, pathlib, sys
from PIL import Image

flags = dict(word[2:].partition("=")[::2] for word in sys.argv[1:])
folder = pathlib.Path(flags["workdir"])
# One that was interrupted goes on; all others are replaced.
assert ("overwrite" in flags) != (folder / "interrupted").exists()
folder.mkdir(exist_ok=True)
with open(folder.parent / "counted_{name}", "a") as stream:
    stream.write("x")
if "{name}" == "broken":
    sys.exit("--images=none.png: no such file")
records = {records}
(folder / "config.json").write_text(json.dumps({{"device": {{"kind": "a chip"}}}}))
(folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\\n" for r in records))
(folder / "table.csv").write_text("layer,size | seed\\nrelu1," + flags["seed"] + "\\n")
(folder / "table.md").write_text("| layer |\\n")
if "{name}" == "caricature":
    (folder / "geometry.csv").write_text("layer,rank\\nrelu1,7.5\\n")
Image.new("RGB", (3000, 40), "red").save(folder / "figure.png")
"""
_LAYERS = ("conv1", "relu1", "pool1", "relu2")


def _layer_records(ssim: Sequence[float]) -> list[dict]:
    """Of two images at four layers and the lambda_V that the paper takes for them."""
    return [
        {
            "image": image,
            "representation": f"alexnet/{layer}",
            "preset": "fast",
            "num_steps": 7,
            "tv_weight": 0.5,
            "status": "budget",
            "normalised_error": error,
            "ssim": value,
        }
        for layer, value in zip(_LAYERS, ssim, strict=True)
        for image, error in (("one", 0.10), ("two", 0.14))
    ]


@pytest.fixture
def tiny(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """Two made-up studies in place of the real ones, and one that fails."""
    modules = tmp_path / "modules"
    modules.mkdir()
    studies = []
    for name, records in (
        ("layer_progression", _layer_records([0.9, 0.8, 0.7, 0.6])),
        ("caricature", [{"representation": "a/relu1", "growth": 0.5, "image": "one"}]),
        ("broken", []),
    ):
        text = _TINY.format(name=name, records=records)
        (modules / f"tiny_{name}.py").write_text(text)
        studies.append(Entry(name, f"About {name}", (), 1, module=f"tiny_{name}"))
    studies.append(Entry("absent", "About nothing", (), 1))
    monkeypatch.setattr(reproduce, "STUDIES", tuple(studies))
    monkeypatch.syspath_prepend(str(modules))
    monkeypatch.setenv("PYTHONPATH", str(modules))
    return tmp_path / "run"


def _run(workdir: pathlib.Path, *studies: str, **values: object) -> None:
    with flagsaver.flagsaver(
        **{"workdir": str(workdir), "studies": list(studies), **values}
    ):
        reproduce.main()


def _counts(workdir: pathlib.Path) -> dict[str, int]:
    return {
        path.name.removeprefix("counted_"): path.stat().st_size
        for path in workdir.glob("counted_*")
    }


def test_a_report_of_two_studies(tiny: pathlib.Path):
    _run(tiny, "layer_progression", "caricature")
    markdown = (tiny / "report.md").read_text()
    page = (tiny / "report.html").read_text()
    # The paper's number beside ours: 10 and 14 % are 12 +- 2.
    row = "| conv1 | 0.5 | 10.0 ± 5.0 | 12.0 ± 2.0 | alexnet/conv1, fast, 7 | 2 |"
    assert row in markdown
    assert "| fc8 | 50 | 8.5 ± 1.3 | – | – | 0 |" in markdown
    assert "recalled" in markdown and "Spearman -1.00" in markdown
    for text in (markdown, page):
        assert "12.0 ± 2.0" in text and "10.0 ± 5.0" in text
        assert "SSIM 0.90 at alexnet/conv1, 0.60 at alexnet/relu2" in text
        assert "0 of 8 reconstructions exceed it" in text
        assert "Images: one, two." in text and "fast with 7 steps" in text
        assert "the study maximise is not part of this report" in text
        assert "a chip" in text
    assert "size \\| seed" in markdown and "size | seed" in page
    assert (
        "### Geometry\n\n| layer | rank |\n| --- | --- |\n| relu1 | 7.5 |" in markdown
    )
    assert "<h3>Geometry</h3>" in page and "7.5" in page
    # One file: nothing is linked but its own sections.
    assert page.count("data:image/jpeg;base64,") == 2
    assert 'src="pictures' not in page and "http" not in page
    assert "](pictures/caricature_figure.jpg)" in markdown
    with Image.open(tiny / "pictures" / "caricature_figure.jpg") as picture:
        # Of 3000 x 40.
        assert picture.format == "JPEG" and picture.size == (640, 9)


def test_neurons_are_no_images():
    method = {"preset": "ijcv2016", "num_steps": 300, "representation": "vgg16/conv1_1"}
    records = {
        "maximise": [method | {"image": "unit_0003", "unit": "3"}],
        "caricature": [method | {"image": name} for name in ("one", "two")],
    }
    networks, images, steps, _ = report.differences([], records)
    assert networks.startswith("Networks: vgg16.")
    assert images.startswith("Images: one, two.")
    assert steps.startswith("Method: ijcv2016 with 300 steps.")


def test_what_is_done_is_not_run_again(tiny: pathlib.Path):
    both = ("layer_progression", "caricature")
    _run(tiny, "caricature")
    _run(tiny, *both)
    assert _counts(tiny) == {"layer_progression": 1, "caricature": 1}
    # As after an interruption: the folder is there, not all of its files are.
    (tiny / "caricature" / "figure.png").unlink()
    _run(tiny, *both)
    assert _counts(tiny) == {"layer_progression": 1, "caricature": 2}
    _run(tiny, "caricature", seed=1)
    assert _counts(tiny)["caricature"] == 3
    assert "| relu1 | 1 |" in (tiny / "report.md").read_text()
    _run(tiny, *both, overwrite=True)
    assert _counts(tiny) == {"layer_progression": 2, "caricature": 4}


def test_a_study_that_was_interrupted_goes_on(tiny: pathlib.Path):
    _run(tiny, "caricature")
    state = json.loads((tiny / "reproduction.json").read_text())
    state["caricature"]["seconds"] = None
    (tiny / "reproduction.json").write_text(json.dumps(state))
    (tiny / "caricature" / "metrics.jsonl").unlink()
    (tiny / "caricature" / "interrupted").touch()
    _run(tiny, "caricature")
    assert _counts(tiny) == {"caricature": 2}
    assert "| relu1 | 0 |" in (tiny / "report.md").read_text()
    (tiny / "caricature" / "interrupted").unlink()
    # With other arguments it begins anew.
    (tiny / "caricature" / "metrics.jsonl").unlink()
    _run(tiny, "caricature", seed=1)
    assert _counts(tiny) == {"caricature": 3}


def test_a_study_that_fails_is_named_and_the_others_run(tiny: pathlib.Path):
    with pytest.raises(Refusal, match=r"1 of 2 studies failed: broken \(exit code 1\)"):
        _run(tiny, "broken", "caricature")
    markdown = (tiny / "report.md").read_text()
    assert "Not done: --images=none.png: no such file." in markdown
    assert "![About caricature: figure]" in markdown
    with pytest.raises(Refusal, match="broken"):
        _run(tiny, "broken", "caricature")
    assert _counts(tiny) == {"broken": 2, "caricature": 1}


def test_a_study_that_does_not_exist(
    tiny: pathlib.Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(Refusal, match="no experiments.absent"):
        _run(tiny, "absent")
    with pytest.raises(Refusal, match="caricature"):
        _run(tiny, "nothing")
    assert not tiny.exists()
    with flagsaver.flagsaver(dry_run=True):
        reproduce.main()
    printed_lines = capsys.readouterr().out
    assert "absent: left out" in printed_lines
    assert "-m tiny_caricature --workdir=WORKDIR/caricature" in printed_lines


def test_other_peoples_folders_are_left_alone(tiny: pathlib.Path):
    tiny.mkdir()
    (tiny / "thesis.tex").write_text("years of work")
    with pytest.raises(Refusal, match="thesis.tex"):
        _run(tiny, "caricature", overwrite=True)
    assert sorted(path.name for path in tiny.iterdir()) == ["thesis.tex"]


def test_flags_of_inversion_are_refused(tiny: pathlib.Path):
    with flagsaver.as_parsed(num_steps="5"):
        with pytest.raises(Refusal, match="--num_steps"):
            _run(tiny, "caricature")


def test_every_claim_has_a_test_and_a_study():
    content = printed.load()
    assert {claim.id for claim in content.claims} == set(claims.TESTS)
    names = {study.name for study in reproduce.STUDIES}
    assert {claim.study for claim in content.claims} <= names
    assert {table.study for table in content.tables} <= names
    assert len(names) == len(reproduce.STUDIES)
    first, second = content.tables
    assert (len(first.numbers), len(second.numbers)) == (3, 20 * 3)


def test_names_of_the_papers_layers():
    assert printed.layer_of("alexnet/pool1") == "mpool1"
    assert printed.layer_of("caffenet/mpool1") == "mpool1"
    assert printed.layer_of("hogb") == "hogb"
    assert printed.layer_of("vgg16/pool1") == "vgg16/pool1"


def test_the_weight_that_presets_take():
    assert claims.chosen_weight("alexnet/relu1") == 0.5
    assert claims.chosen_weight("alexnet/relu3") == 5
    assert claims.chosen_weight("efficientnet_lite0/logits") == 50
    assert claims.chosen_weight("hog") == 0.5
    assert claims.chosen_weight("mine/relu1") is None


def test_rank_correlation():
    assert claims.spearman([1, 2, 3], [10, 20, 100]) == pytest.approx(1)
    assert claims.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    # By hand, with a tie: ranks 1 2 3 4 and 1.5 1.5 3 4.
    expected = np.corrcoef([1, 2, 3, 4], [1.5, 1.5, 3, 4])[0, 1]
    assert claims.spearman([1, 2, 3, 4], [5, 5, 6, 7]) == pytest.approx(expected)
    assert np.isnan(claims.spearman([1, 2], [1, 2]))
    assert np.isnan(claims.spearman([1, 2, 3], [5, 5, 5]))


def _by_claim(claim: str, records: list[dict] | None) -> Verdict:
    (found,) = (one for one in printed.load().claims if one.id == claim)
    return claims.verdict(found, records)


def _shallow(hog: float, hogb: float, dsift: float) -> list[dict]:
    errors = {"hog": hog, "hogb": hogb, "dsift": dsift}
    return [
        {"representation": name, "preset": "cvpr2015", "normalised_error": error}
        for name, error in errors.items()
    ]


def _groups(form: tuple[float, float], colour: tuple[float, float]) -> list[dict]:
    return [
        {
            "representation": "alexnet/relu1",
            "variant": name,
            "chroma_fraction": fractions[0],
            "high_frequency_fraction": fractions[1],
        }
        for name, fractions in (("all", (9, 9)), ("form", form), ("colour", colour))
    ]


def _spikes(with_1: float, with_2: float) -> list[dict]:
    return [
        {
            "representation": "alexnet/pool1",
            "lambda_V": 0.5,
            "beta": beta,
            "jitter": 1,
            "spikes": value,
            "mean_gradient": 1.0,
        }
        for beta, value in ((1.0, with_1), (2.0, with_2))
    ]


def _natural(error: float, score: float) -> list[dict]:
    """No regulariser as given, beside an error of 10 % and a score of 0.9."""
    return [
        {
            "representation": "alexnet/relu1",
            "tv_weight": weight,
            "relative_error": values[0],
            "naturalness": values[1],
        }
        for weight, values in ((0.0, (error, score)), (0.5, (0.1, 0.9)))
    ]


def _growth(*values: float) -> list[dict]:
    return [
        {"representation": f"alexnet/relu{layer}", "growth": value}
        for layer, value in enumerate(values, 1)
    ]


def _extents(*values: float) -> list[dict]:
    return [
        {"representation": f"alexnet/relu{layer}", "effective_side": value}
        for layer, value in enumerate(values, 1)
    ]


def _weights(*best: float) -> list[dict]:
    """Of layers that look most natural at these weights of 0.5, 5 and 50."""
    return [
        {
            "representation": f"alexnet/relu{layer}",
            "tv_weight": weight,
            "naturalness": 0.9 if weight == wanted else 0.8,
        }
        for layer, wanted in enumerate(best, 1)
        for weight in (0.5, 5.0, 50.0)
    ]


def _fields(effective: float) -> list[dict]:
    return [{"representation": "a", "effective_side": effective, "field_side": 50}]


def _starts(kept: float) -> list[dict]:
    return [
        {"representation": "a", "image": "one", "classifier_top1": 1.0},
        {"representation": "b", "image": "one", "classifier_top1": kept},
        {"representation": "b", "image": "abstract", "classifier_top1": 0},
    ]


def _abstract(error: float) -> list[dict]:
    return [
        {"representation": "a", "image": image, "relative_error": value}
        for image, value in (("abstract", error), ("one", 0.2), ("two", 0.3))
    ]


def _smooth(last: float) -> list[dict]:
    return [
        {
            "representation": "a",
            "lambda_V": weight,
            "beta": 2.0,
            "jitter": 1,
            "mean_gradient": value,
        }
        for weight, value in ((0.5, 8.0), (50.0, last))
    ]


@pytest.mark.parametrize(
    ("claim", "holding", "failing"),
    [
        (
            "fuzzier_with_depth",
            _layer_records([0.9, 0.8, 0.7, 0.6]),
            _layer_records([0.6, 0.7, 0.8, 0.9]),
        ),
        (
            "error_by_depth",
            [
                {"representation": f"l{n}", "tv_weight": 5.0, "normalised_error": e}
                for n, e in enumerate((0.3, 0.1, 0.2, 0.1))
            ],
            [
                {"representation": f"l{n}", "tv_weight": 5.0, "normalised_error": e}
                for n, e in enumerate((0.1, 0.2, 0.3, 0.4))
            ],
        ),
        (
            "rarely_above_20",
            _layer_records([1, 1, 1, 1]),
            [
                record | {"normalised_error": 0.21}
                for record in _layer_records([1, 1, 1, 1])
            ],
        ),
        ("bilinear_halves", _shallow(0.28, 0.11, 0.1), _shallow(0.28, 0.2, 0.1)),
        ("dsift_like_hogb", _shallow(0.3, 0.1, 0.105), _shallow(0.3, 0.1, 0.12)),
        ("spikes_of_beta_1", _spikes(2.0, 1.0), _spikes(1.0, 1.0)),
        ("smoother_with_weight", _smooth(4.0), _smooth(9.0)),
        ("starts_keep_label", _starts(1.0), _starts(0.0)),
        ("abstract_is_captured", _abstract(0.25), _abstract(0.4)),
        ("effective_field", _fields(30), _fields(60)),
        ("extent_grows", _extents(20, 40, 90), _extents(90, 40, 20)),
        ("deep_needs_weight", _weights(0.5, 5, 50), _weights(50, 5, 0.5)),
        (
            "two_streams",
            _groups((0.1, 0.3), (0.5, 0.1)),
            _groups((0.5, 0.3), (0.1, 0.1)),
        ),
        ("unregularised_unnatural", _natural(0.05, 0.7), _natural(0.05, 0.95)),
        (
            "beyond_photographs",
            [{"relative_activation": 5.0}, {"relative_activation": None}],
            [{"relative_activation": 1.5}],
        ),
        (
            "classes_recognised",
            [{"label": "tench", "unit": "tench"}],
            [{"label": "goose", "unit": "tench"}, {"label": None, "unit": "tench"}],
        ),
        ("deep_caricatures_grow", _growth(0.9, 1.2, 3.0), _growth(3.0, 1.2, 0.9)),
    ],
)
def test_a_claim_is_decided_by_the_records(
    claim: str, holding: list[dict], failing: list[dict]
):
    assert _by_claim(claim, holding).holds is True
    assert _by_claim(claim, failing).holds is False
    assert _by_claim(claim, None).holds is None
    assert _by_claim(claim, []).holds is None
    # Records of a study that writes other fields decide nothing, and say why.
    assert "have no" in _by_claim(claim, [{"status": "budget"}]).evidence
    failed = [record | {"status": "failed"} for record in failing]
    assert _by_claim(claim, failed).holds is None


def test_lanes_of_variants_are_not_the_papers_numbers():
    table = printed.load().tables[1]
    records = _layer_records([1, 1, 1, 1])
    varied = [record | {"variant": "patch"} for record in records]
    assert printed.beside(table, varied) == printed.beside(table, [])
    found = {tuple(row[:2]): row[3] for row in printed.beside(table, records)}
    assert found["mpool1", "0.5"] == "12.0 ± 2.0" and found["mpool1", "5"] == "–"


def test_a_damaged_state_is_refused(tiny: pathlib.Path):
    _run(tiny, "caricature")
    (tiny / "reproduction.json").write_text(json.dumps({"caricature": []}))
    with pytest.raises(Refusal, match="reproduction.json"):
        _run(tiny, "caricature")
