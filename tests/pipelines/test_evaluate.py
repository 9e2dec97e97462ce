"""The evaluate job over runs whose answers are known: perfect, constant, broken, different."""

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovsops.errors import ConfigError, OutputError
from ovsops.metrics.bootstrap import BootstrapConfig
from ovsops.metrics.segmentation import ConfusionCounts
from pipelines.evaluate import EvaluatedRun, EvaluateJob, EvaluateLimits, run_evaluate
from pipelines.evaluation.counting import CountConfig
from pipelines.evaluation.pictures import ImageSource, PicturesConfig
from pipelines.evaluation.truths import WorldTruth
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import open_storage
from pipelines.summary import Limits
from tests.tiny.world import SEEDS, label_world, true_maps, write_world

GRASS, SNOW = 13, 19


def shuffled(truth: np.ndarray) -> np.ndarray:
    """Every class called by the name of the next."""
    return truth % 20 + 1


ANSWERS = {
    "perfect": lambda truth: truth,
    "constant": lambda truth: np.full_like(truth, SNOW),
    "shuffled": shuffled,
    "half": lambda truth: np.where(np.arange(truth.shape[1]) < truth.shape[1] // 2, truth, 0),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards in `in`, and a run for each answer."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "in")
    for name, answer in ANSWERS.items():
        label_world(folder / "in", folder / name, answer)
    return folder


def make_job(world: Path, out: Path, *names: str, **changes: Any) -> EvaluateJob:
    source = ImageSource(shards=tuple(expand_inputs([str(world / "in" / "*.tar")])))
    fields: dict[str, Any] = {
        "output": str(out),
        "runs": {n: EvaluatedRun(storage=open_storage(str(world / n)), source=source) for n in names},
        "truth": WorldTruth(),
        "manifest": {
            "schema_version": SCHEMA_VERSION,
            "recipe": {"runs": list(names)},
            "recipe_hash": "hash",
            "command": "ovsops run e.yaml",
        },
        "pictures": PicturesConfig(first=0, worst=0),
        "bootstrap": BootstrapConfig(num_resamples=100),
    }
    return EvaluateJob(**fields | changes)


def figures(summary: dict[str, Any], run: str) -> dict[str, float]:
    return {name: estimate["value"] for name, estimate in summary["figures"][run].items()}


def test_labels_that_are_the_truth_score_one_everywhere(world: Path, tmp_path: Path) -> None:
    found = figures(run_evaluate(make_job(world, tmp_path / "e", "perfect")), "perfect")
    errors = [found.pop("calibration_error"), found.pop("calibration_error_by_area")]
    assert set(found.values()) == {1.0}
    assert errors == pytest.approx([0.1, 0.1], abs=2e-5)  # all right at 0.9; score maps have 16 bits


def test_broken_models_score_what_theory_says(world: Path, tmp_path: Path) -> None:
    summary = run_evaluate(make_job(world, tmp_path / "e", "constant", "shuffled", "half"))
    truth = np.stack(list(true_maps().values()))
    occurring = np.unique(truth)
    snow = (truth == SNOW).mean()
    constant = figures(summary, "constant")
    assert constant["pixel_accuracy"] == pytest.approx(snow)
    assert constant["mean_iou"] == pytest.approx(snow / len({*occurring.tolist(), SNOW}))
    assert constant["mean_iou_things"] == 0
    assert figures(summary, "shuffled")["mean_iou"] == 0
    assert figures(summary, "shuffled")["region_accuracy"] == 0
    half = figures(summary, "half")
    assert half["labelled_share"] == half["pixel_accuracy"] == 0.5
    assert half["region_accuracy"] == 1


def test_figures_are_those_of_the_metrics_over_all_pixels(world: Path, tmp_path: Path) -> None:
    job = make_job(world, tmp_path / "e", "half", counts=CountConfig(grid=6))
    found = figures(run_evaluate(job), "half")
    counts = ConfusionCounts.zeros(21)
    for truth in true_maps().values():
        counts = counts.update(truth.astype(np.int64), ANSWERS["half"](truth).astype(np.int64))
    for ids, name in (
        (range(1, 21), "mean_iou"),
        (range(13, 21), "mean_iou_stuff"),
        (range(1, 13), "mean_iou_things"),
    ):
        assert found[name] == pytest.approx(counts.compute(list(ids)).mean_iou), name
    assert found["pixel_accuracy"] == pytest.approx(counts.compute().pixel_accuracy)
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert metrics["ceiling"]["grid"] == 6
    assert 0.2 < metrics["ceiling"]["hard"]["mean_iou"]["value"] < 1
    grass = next(c for c in metrics["runs"]["half"]["classes"] if c["id"] == GRASS)
    assert grass["true_pixels"] == counts.areas[1, GRASS]
    assert grass["name"] == "grass"
    for name, estimate in metrics["runs"]["half"]["figures"].items():
        assert estimate["low"] <= estimate["value"] <= estimate["high"], name
    assert (metrics["recipe_hash"], metrics["command"]) == ("hash", "ovsops run e.yaml")


def test_runs_are_compared_with_the_first_image_by_image(world: Path, tmp_path: Path) -> None:
    run_evaluate(make_job(world, tmp_path / "e", "half", "perfect"))
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    difference = metrics["differences_to_first"]["perfect"]["pixel_accuracy"]
    assert difference == {"value": 0.5, "low": 0.5, "high": 0.5}  # the same on every image: no spread
    text = (tmp_path / "e" / "metrics.md").read_text()
    assert "perfect − half" in text
    assert "+0.500 [+0.500, +0.500]" in text


def test_plots_pictures_and_page_are_written(world: Path, tmp_path: Path) -> None:
    out = tmp_path / "e"
    job = make_job(
        world,
        out,
        "half",
        pictures=PicturesConfig(first=2, worst=1),
        title="A <title>",
        notice="Drawn & small",
        counts=CountConfig(grid=6),
    )
    run_evaluate(job)
    assert sorted(p.name for p in (out / "plots").iterdir()) == [
        "classes.png",
        "confusion-half.png",
        "instance-classes.png",
        "instance-reliability.png",
        "reliability.png",
    ]
    pictures = sorted((out / "pictures").iterdir())
    assert [p.name for p in pictures[:2]] == [f"half-first-0{i + 1}-{SEEDS[i]:08d}.png" for i in range(2)]
    assert len(pictures) == 3
    with Image.open(pictures[0]) as sheet:
        assert sheet.width > 3 * 48
    page = (out / "index.html").read_text()
    assert page.count('src="data:image/png;base64,') == page.count(" src=") == 5 + 3 * 3  # plots; panels
    assert "A &lt;title&gt;" in page
    assert "Drawn &amp; small" in page
    assert "http:" not in page
    assert "https:" not in page
    assert "default-src 'none'; img-src data:;" in page
    assert "prefers-color-scheme: dark" in page
    links = set(re.findall(r'href="([^"]+)"', page))
    assert links == {str(p.relative_to(out)) for p in [*pictures, *(out / "plots").iterdir()]}
    assert re.search(r'<li><i style="background:rgb\(\d+, \d+, \d+\)"></i>[a-z]+</li>', page)
    assert "**Drawn & small**" in (out / "metrics.md").read_text()


def test_equal_runs_give_equal_bytes(world: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        run_evaluate(make_job(world, tmp_path / name, "half", pictures=PicturesConfig(worst=2)))
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and path.name != "summary.json":
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path


def break_image(folder: Path, number: int) -> None:
    """Cut the PNG of a scene in half; its truth stays."""
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = [(m, tar.extractfile(m).read()) for m in tar.getmembers()]  # type: ignore[union-attr]
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for member, data in members:
                kept = data[: len(data) // 2] if member.name == f"{number:08d}.png" else data
                member.size = len(kept)

                tar.addfile(member, io.BytesIO(kept))


def test_failed_images_are_named_and_count_as_wrong(tmp_path: Path) -> None:
    write_world(tmp_path / "in")
    break_image(tmp_path / "in", SEEDS[0])
    label_world(tmp_path / "in", tmp_path / "run", ANSWERS["perfect"], limits=Limits(max_failed_share=1.0))
    summary = run_evaluate(make_job(tmp_path, tmp_path / "e", "run"))
    assert figures(summary, "run")["pixel_accuracy"] == pytest.approx(5 / 6)
    assert summary["images"]["run"] == {"failed": 1, "labelled": 5}
    (reason,) = summary["over_limits"]
    assert (
        f"1 of 6 images failed (limits.max_failed_share is 1.00%); the first: world-000000.tar {SEEDS[0]:08d}"
        in reason
    )
    metrics = json.loads((tmp_path / "e" / "metrics.json").read_text())
    (error,) = metrics["runs"]["run"]["not_labelled"].values()
    assert error.startswith("E_")
    assert (
        "counted as unlabelled everywhere, wrong wherever a class is true"
        in (tmp_path / "e/metrics.md").read_text()
    )


class SomeTruth(WorldTruth):
    """Knows all scenes but one."""

    def sidecar(self, image: Any) -> str | None:
        return None if image.key == f"{SEEDS[0]:08d}" else super().sidecar(image)


def test_images_without_truth_are_named_and_not_counted(world: Path, tmp_path: Path) -> None:
    summary = run_evaluate(make_job(world, tmp_path / "e", "perfect", truth=SomeTruth()))
    assert summary["images"]["counted"] == 5
    assert summary["images"]["without_truth"] == 1
    assert "1 of 6 images have no usable truth" in summary["over_limits"][0]
    assert figures(summary, "perfect")["mean_iou"] == 1
    lenient = EvaluateLimits(max_without_truth_share=0.2)
    assert not run_evaluate(make_job(world, tmp_path / "f", "perfect", truth=SomeTruth(), limits=lenient))[
        "over_limits"
    ]


def test_without_any_truth_there_is_nothing_to_say(world: Path, tmp_path: Path) -> None:
    class NoTruth(WorldTruth):
        def sidecar(self, image: Any) -> str | None:
            return None

    with pytest.raises(ConfigError, match=r"nothing to count: E_NO_TRUTH: world-000000\.tar"):
        run_evaluate(make_job(world, tmp_path / "e", "perfect", truth=NoTruth()))
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["state"] == "error"
    assert "E_NO_TRUTH" in summary["error"]


def test_runs_over_different_images_are_refused(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path / "in", SEEDS[:4])
    label_world(tmp_path / "in", tmp_path / "short", ANSWERS["perfect"])
    job = make_job(world, tmp_path / "e", "perfect")
    short = EvaluatedRun(storage=open_storage(str(tmp_path / "short")), source=None)
    mixed = EvaluateJob(**{**vars(job), "runs": {**job.runs, "short": short}})
    with pytest.raises(OutputError, match=r"perfect: world-000001\.tar .*, short: no more images"):
        run_evaluate(mixed)


def test_an_unfinished_run_is_over_the_limits(world: Path, tmp_path: Path) -> None:
    storage = open_storage(str(world / "constant"))
    plain = json.loads(storage.read("summary.json"))
    storage.put("summary.json", json.dumps(plain | {"shards": plain["shards"] | {"pending": 3}}).encode())
    try:
        summary = run_evaluate(make_job(world, tmp_path / "e", "constant"))
    finally:
        storage.put("summary.json", json.dumps(plain).encode())
    assert summary["over_limits"] == ["constant: 3 shards pending; what is missing there is in no figure"]


def test_the_output_of_another_job_is_left_alone(world: Path) -> None:
    before = (world / "perfect" / "run.json").read_bytes()
    with pytest.raises(OutputError, match="was made with another recipe"):
        run_evaluate(make_job(world, world / "perfect", "perfect"))
    assert (world / "perfect" / "run.json").read_bytes() == before
    assert "read" in json.loads((world / "perfect" / "summary.json").read_text())["images"]
