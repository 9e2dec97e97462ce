"""`ovsops plan --sample`: what it says, what it writes and where, and what would fail later."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.plan_sample import check_place
from ovsops.errors import OutputError
from ovsops.segmenters.segmenter import FusedSegmenter

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]
INLINE = ("--engine", "inline")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_a_sample_writes_into_its_own_folder_alone(
    write_recipe: Write, ovsops: Call, tmp_path: Path, temporary: Path
) -> None:
    recipe = write_recipe()
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "plan"
    words = ("--price-gpu-hour", "2", "--price-cpu-hour", "0.04", "--price-gb-month", "0.02")
    people = ("--review-seconds", "6", "--price-review-minute", "0.5")
    code, text, err = ovsops("plan", recipe, "--sample", "64", "--out", out, *INLINE, *words, *people)
    assert code == 0, err
    assert "6 images of 2 shards: 6 labelled" in text
    assert "<- slowest" in text
    written = {path.relative_to(tmp_path).as_posix() for path in set(tmp_path.rglob("*")) - set(before)}
    assert {name for name in written if not name.startswith("plan")} == set()
    assert len([name for name in written if name.startswith("plan/overlays/")]) == 6
    assert {path.name for path in out.iterdir()} == {".ovsops-plan", "plan.json", "overlays"}
    for picture in (out / "overlays").iterdir():
        assert np.asarray(Image.open(picture)).std() > 1
    found = json.loads((out / "plan.json").read_text())
    _check_figures(found)
    again = ovsops("plan", recipe, "--sample", "2", "--out", out, *INLINE)
    assert again[0] == 0
    assert len(list((out / "overlays").iterdir())) == 2  # its own files are replaced


def _check_figures(found: dict[str, Any]) -> None:
    forecast, sample, cost = found["forecast"], found["sample"], found["cost"]
    assert (found["exit_code"], found["problems"]) == (0, [])
    assert (forecast["images"], forecast["shards"], sample["images"]) == (6, 2, 6)
    rate, seconds, start = (
        forecast[n]["value"] for n in ("images_per_second", "seconds", "start_up_seconds")
    )
    assert seconds == pytest.approx(6 / rate + start)
    hours = forecast["cpu_hours"]["value"]
    assert hours == pytest.approx(seconds / 3600)
    assert cost["cpu"]["value"] == pytest.approx(0.04 * hours)
    assert cost["gpu"]["value"] == 0
    reviews = forecast["labels_to_review"]["value"]
    assert forecast["review_minutes"]["value"] == pytest.approx(reviews * 0.1)
    assert cost["once"]["value"] == pytest.approx(0.04 * hours + reviews * 0.05)
    assert cost["storage_month"]["value"] == pytest.approx(0.02 * forecast["stored_bytes"]["value"] / 1e9)
    assert forecast["bottleneck"] in {stage["stage"] for stage in forecast["stages"]}
    assert set(sample["models_seconds_per_image_by_part"]) == {"segmenter"}


def test_without_a_folder_nothing_stays(
    write_recipe: Write, ovsops: Call, tmp_path: Path, temporary: Path
) -> None:
    recipe = write_recipe()
    before = sorted(tmp_path.rglob("*"))
    code, text, _ = ovsops("plan", recipe, "--sample", "4")
    assert code == 0
    assert "4 images of 2 shards" in text
    assert "images/s (ray: stages side by side, 1 actor)" in " ".join(text.split())
    assert "cost" not in text  # no price is made up
    assert sorted(tmp_path.rglob("*")) == before


def test_the_disk_forecast_is_near_what_a_run_takes(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    recipe = write_recipe()
    ovsops("plan", recipe, "--sample", "6", "--out", tmp_path / "plan", *INLINE)
    forecast = json.loads((tmp_path / "plan" / "plan.json").read_text())["forecast"]
    ovsops("run", recipe, *INLINE)
    taken = sum(path.stat().st_size for path in (tmp_path / "out").glob("*/*") if path.is_file())
    assert forecast["stored_bytes"]["value"] == pytest.approx(taken, rel=0.25)
    code, text, _ = ovsops("plan", recipe, "--sample", "6")
    assert code == 0
    assert "6 images done, skipped now" in " ".join(text.split())
    assert "nothing is left to label" in text


def test_archives_that_are_too_large_to_count_are_estimated_from_their_beginnings(
    write_recipe: Write, ovsops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.plan.SAMPLE_BYTES", 10)
    code, text, _ = ovsops("plan", write_recipe(), "--sample", "2")
    assert code == 0
    said = " ".join(text.split())
    assert "images not counted" in said
    assert "images (estimated from the beginnings of 2 archives)" in said
    assert "how sure the number of images is" in said


def test_a_plan_without_a_sample_says_how_to_get_one(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    code, text, _ = ovsops("plan", write_recipe(), "--out", tmp_path / "plan")
    assert code == 0
    assert "--sample 64" in text
    found = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert "6 images" in found["facts"]["input"]
    assert "sample" not in found


@pytest.mark.parametrize("place", ["out", "out/plan", ".", "in/plan"])
def test_a_plan_keeps_out_of_output_and_input(
    write_recipe: Write, ovsops: Call, tmp_path: Path, place: str
) -> None:
    recipe = write_recipe(input={"shards": str(tmp_path / "in")})
    before = sorted(tmp_path.rglob("*"))
    code, _, err = ovsops("plan", recipe, "--sample", "2", "--out", tmp_path / place)
    assert code == 5
    assert "choose another" in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_into_the_output_is_the_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(OutputError, match="lie in each other"):
        check_place(tmp_path / "link" / "plan", str(tmp_path / "out"), ())
    check_place(tmp_path / "plan", "s3://bucket/out", ("s3://bucket/in",))


def test_files_of_others_are_not_replaced(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "plan.json").write_text("mine")
    code, _, err = ovsops("plan", write_recipe(), "--out", tmp_path / "mine")
    assert code == 5
    assert "plan.json" in err
    assert (tmp_path / "mine" / "plan.json").read_text() == "mine"


def test_failures_over_the_limit_are_4_before_the_run(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    recipe = write_recipe(broken_every=3, limits={"max_failed_share": 0.2})
    code, text, _ = ovsops("plan", recipe, "--sample", "64", "--out", tmp_path / "plan")
    assert code == 4
    said = text.replace("\n", " ")
    # 2 of 6: Clopper and Pearson's interval is 4.3 % to 77.7 %, so the limit of 20 % may hold after all.
    assert "2 of 6 sampled images failed (33.3%, 95 % interval 4.3% to 77.7%" in said
    assert "the run may end with 3 (E_TRUNCATED 2)" in said
    found = json.loads((tmp_path / "plan" / "plan.json").read_text())
    assert found["exit_code"] == 4
    assert found["sample"]["failures_by_code"] == {"E_TRUNCATED": 2}
    assert (
        ovsops("plan", write_recipe(broken_every=3, limits={"max_failed_share": 0.4}), "--sample", "64")[0]
        == 0
    )


def test_a_sample_that_decodes_nothing_is_4(write_recipe: Write, ovsops: Call) -> None:
    code, text, _ = ovsops("plan", write_recipe(broken_every=1), "--sample", "64")
    assert code == 4
    assert "every sampled image failed (E_TRUNCATED 6)" in text


def test_a_model_that_fails_is_4(
    write_recipe: Write, ovsops: Call, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(FusedSegmenter, "segment", fail)
    code, text, _ = ovsops("plan", write_recipe(), "--sample", "64")
    assert code == 4
    assert "every sampled image failed (E_MODEL 6)" in text
    few = ("--set", "batch.max_model_failures=2")
    code, text, err = ovsops("plan", write_recipe(), "--sample", "64", "--out", tmp_path / "plan", *few)
    assert code == 4
    assert "the sample failed: RuntimeError: out of memory" in text
    assert "Traceback" not in err
    assert {path.name for path in (tmp_path / "plan").iterdir()} == {".ovsops-plan", "plan.json"}
    assert not list(temporary.iterdir())


def test_what_stands_in_the_way_comes_before_a_sample(write_recipe: Write, ovsops: Call) -> None:
    code, text, _ = ovsops("plan", write_recipe(), "--sample", "64", "--set", "segment_on.num_gpus=1")
    assert code == 4
    assert "no sample was tried" in text


def test_a_cluster_with_gpus_is_not_sampled_from_a_machine_without(
    write_recipe: Write, ovsops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    recipe = write_recipe(ray={"address": "auto"}, segment_on={"actors": 2, "num_gpus": 1})
    code, text, _ = ovsops("plan", recipe, "--sample", "64")
    assert code == 0  # the cluster may have what this machine lacks
    assert "needs a GPU that torch can use" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--price-gpu-hour", "2"], "add --sample 64"),
        (["--sample", "4", "--price-gpu-hour=-1"], "--price-gpu-hour is -1"),
        (["--sample", "4", "--price-review-minute", "1"], "needs --review-seconds"),
        (["--sample=-1"], "greater than or equal to 0"),
    ],
)
def test_options_that_do_not_go_together_are_2(
    write_recipe: Write, ovsops: Call, words: list[str], says: str
) -> None:
    code, _, err = ovsops("plan", write_recipe(), *words)
    assert code == 2
    assert says in err
