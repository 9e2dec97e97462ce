"""The label job end to end on a segmenter whose answers are known from the pixels."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ovsops.errors import OutputError
from ovsops.masks.rle import Rle, rle_to_mask
from pipelines.label import LabelJob, run_label
from pipelines.ledger import Ledger
from pipelines.lock import OutputLock
from pipelines.runner import InlineEngine, Placement, RayConfig, RayEngine
from pipelines.schemas import IMAGES, INSTANCES, SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions, open_storage
from pipelines.summary import Limits
from tests.tiny.segmenters import CLASSES, ColourFactory
from tests.tiny.shards import draw_image, encode, write_shards, write_tar


def make_job(patterns: list[str], out: Path, **changes: Any) -> LabelJob:
    fields: dict[str, Any] = {
        "output": str(out),
        "shards": tuple(expand_inputs(patterns, StorageOptions())),
        "annotator": ColourFactory(),
        "segmenter_name": "colour",
        "classes": CLASSES,
        "manifest": {
            "schema_version": SCHEMA_VERSION,
            "recipe": {"segmenter": "colour"},
            "recipe_hash": "abc",
        },
        "batch": BatchConfig(max_images=4, decode_workers=1),
    }
    return LabelJob(**fields | changes)


def run_inline(job: LabelJob, run: str = "test") -> dict[str, Any]:
    return run_label(job, InlineEngine(job.storage), run=run)


def table_hashes(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("images", "instances")
        for path in sorted((out / folder).iterdir())
    }


@pytest.fixture
def shards(tmp_path: Path) -> str:
    write_shards(tmp_path / "in", num_shards=3, images_per_shard=7, broken_every=5)
    return str(tmp_path / "in" / "*.tar")


def test_every_image_has_a_row_and_every_red_pixel_a_mask(shards: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run_inline(make_job([shards], out))
    images, instances = pd.read_parquet(out / "images"), pd.read_parquet(out / "instances")
    assert len(images) == 21
    assert summary["images"] == {
        "read": 21,
        "labelled": 17,
        "skipped": 0,
        "failed": 4,
        "instances": len(instances),
        "invariant_holds": True,
    }
    assert set(images.error_code.dropna()) == {"E_TRUNCATED"}
    assert set(images.license) == {"CC0"}
    assert list(images.columns) == IMAGES.names
    assert list(instances.columns) == INSTANCES.names
    for image in images[images.status == "labelled"].itertuples():
        pixels = draw_image(int(image.key)).astype(int)
        red = np.zeros(pixels.shape[:2], bool)
        for region in instances[instances.image_uid == image.image_uid].itertuples():
            mask = rle_to_mask(Rle(size_hw=pixels.shape[:2], counts=region.segmentation["counts"]))
            assert mask.sum() == region.area
            if region.category_id == 1:
                assert region.score > 0.5
                red |= mask.astype(bool)
        drawn = (pixels[..., 0] > 200) & (pixels[..., 1] < 60)
        assert (red & drawn).sum() / (red | drawn).sum() > 0.7  # JPEG smears the edges


def test_run_again_reads_nothing_and_changes_nothing(shards: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = make_job([shards], out)
    run_inline(job)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")}
    summary = run_inline(job, run="again")
    assert summary["this_run"]["images"] == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*.parquet")} == before


def test_a_table_that_somebody_removed_is_said_and_comes_back(shards: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = make_job([shards], out)
    run_inline(job)
    gone = sorted((out / "instances").iterdir())[0]
    before = gone.read_bytes()
    gone.unlink()
    with pytest.raises(
        OutputError, match=r"tables of 1 committed shard are gone; delete their records and run again"
    ):
        run_inline(job, run="again")
    (out / "commits" / gone.with_suffix(".json").name).unlink()
    run_inline(job, run="third")
    assert gone.read_bytes() == before


def test_new_shards_are_added_to_an_output(shards: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_inline(make_job([shards], out))
    write_tar(tmp_path / "in" / "shard-000009.tar", [("new.jpg", encode(draw_image(99)))])
    summary = run_inline(make_job([shards], out), run="again")
    assert summary["this_run"]["shards"] == 1
    assert summary["images"]["read"] == 22


def test_a_changed_recipe_is_refused_and_nothing_is_written(shards: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_inline(make_job([shards], out))
    before = table_hashes(out)
    manifest = {"schema_version": SCHEMA_VERSION, "recipe": {"segmenter": "other"}}
    with pytest.raises(OutputError, match='segmenter: "colour" -> "other"'):
        run_inline(make_job([shards], out, manifest=manifest))
    assert table_hashes(out) == before


def test_a_locked_output_is_refused(shards: str, tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path / "out"), StorageOptions())
    with OutputLock(storage), pytest.raises(OutputError, match="used by process"):
        run_inline(make_job([shards], tmp_path / "out"))


def test_an_image_that_breaks_the_model_costs_one_row(tmp_path: Path) -> None:
    members = [(f"{i}.jpg", encode(draw_image(i, width=100 if i == 3 else 64))) for i in range(8)]
    write_tar(tmp_path / "a.tar", members)
    job = make_job([str(tmp_path / "a.tar")], tmp_path / "out", annotator=ColourFactory(refuse_width=100))
    run_inline(job)
    images = pd.read_parquet(tmp_path / "out" / "images")
    assert images.status.value_counts().to_dict() == {"labelled": 7, "failed": 1}
    failed = images[images.status == "failed"].iloc[0]
    assert (failed.key, failed.error_code, failed.error_stage) == ("3", "E_MODEL", "annotate")
    assert "no memory for 100 px" in failed.error_message


def test_a_model_that_fails_on_everything_stops_the_job(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"{i}.jpg", encode(draw_image(i))) for i in range(8)])
    job = make_job(
        [str(tmp_path / "a.tar")],
        tmp_path / "out",
        annotator=ColourFactory(refuse_width=64),
        batch=BatchConfig(max_images=4, decode_workers=1, max_model_failures=6),
    )
    with pytest.raises(RuntimeError, match="no memory"):
        run_inline(job)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["state"] == "error"
    assert "no memory" in summary["error"]
    assert summary["shards"] == {"committed": 0, "pending": 1, "failed": {}, "damaged": {}}


def test_small_images_are_skipped_with_a_reason(tmp_path: Path) -> None:
    members = [("big.jpg", encode(draw_image(1))), ("small.jpg", encode(draw_image(2, height=20, width=30)))]
    write_tar(tmp_path / "a.tar", members)
    batch = BatchConfig(skip_under_side=32, decode_workers=1)
    summary = run_inline(make_job([str(tmp_path / "a.tar")], tmp_path / "out", batch=batch))
    assert summary["images"]["skipped"] == 1
    assert summary["failures_by_code"] == {"S_SMALL": 1}
    assert summary["over_limits"] == []


def test_limits_are_said_in_numbers(shards: str, tmp_path: Path) -> None:
    summary = run_inline(make_job([shards], tmp_path / "out", limits=Limits(max_failed_share=0.05)))
    (sentence,) = summary["over_limits"]
    assert sentence.startswith("4 of 21 images failed (19.05%")


def test_batches_of_any_size_give_the_same_bytes(shards: str, tmp_path: Path) -> None:
    for size in (1, 3, 16):
        batch = BatchConfig(max_images=size, decode_workers=1)
        run_inline(make_job([shards], tmp_path / f"out-{size}", batch=batch))
    assert (
        table_hashes(tmp_path / "out-1")
        == table_hashes(tmp_path / "out-3")
        == table_hashes(tmp_path / "out-16")
    )


@pytest.mark.ray
def test_ray_writes_the_bytes_that_a_plain_loop_writes(shards: str, tmp_path: Path, local_ray: None) -> None:
    run_inline(make_job([shards], tmp_path / "inline"))
    job = make_job([shards], tmp_path / "ray", segment_on=Placement(actors=2, num_cpus=0.5))
    with RayEngine(RayConfig(block_mib=0.01), job.storage) as engine:
        summary = run_label(job, engine, run="ray")
    assert table_hashes(tmp_path / "ray") == table_hashes(tmp_path / "inline")
    assert summary["this_run"]["images"] == 21
    commits = Ledger(open_storage(job.output, job.storage)).read_all()
    assert [c.name for c in commits] == ["shard-000000.tar", "shard-000001.tar", "shard-000002.tar"]


def test_a_shard_that_is_gone_fails_as_a_whole_and_comes_back(shards: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    job = make_job([shards], out)
    hidden = (tmp_path / "in" / "shard-000001.tar").rename(tmp_path / "hidden")
    summary = run_inline(job)
    assert list(summary["shards"]["failed"]) == ["shard-000001.tar"]
    assert summary["shards"]["committed"] == 2
    assert "1 unreadable shard " in summary["over_limits"][-1]
    hidden.rename(tmp_path / "in" / "shard-000001.tar")
    again = run_inline(replace(job), run="again")
    assert again["shards"]["failed"] == {}
    assert again["images"]["read"] == 21
