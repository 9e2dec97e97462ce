"""Counts and samples of a run's tables, against the plain way of counting."""

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ovsops.errors import ConfigError
from pipelines.ledger import Ledger
from pipelines.report.counting import (
    DECISIONS,
    NUM_BANDS,
    NUM_BINS,
    GalleryConfig,
    RunCounts,
    choose_images,
    count_run,
    ranks_of,
    smallest_of_each,
)
from pipelines.storage import open_storage
from tests.pipelines.report.made_run import image_rows, uids, write_made_run, write_manifest, write_tables


def counted(out: Path, config: GalleryConfig | None = None) -> RunCounts:
    storage = open_storage(str(out))
    return count_run(storage, Ledger(storage).read_all(), config or GalleryConfig())


def test_counts_are_those_of_the_rows(tmp_path: Path) -> None:
    counts = counted(write_made_run(tmp_path / "run"))
    rows = pq.read_table(tmp_path / "run" / "instances").to_pylist()
    assert counts.num_regions == len(rows) == 400
    assert counts.num_per_class == Counter(row["category_id"] for row in rows)
    assert counts.reasons == Counter(code for row in rows for code in row["reason_codes"])
    assert counts.rivals == Counter(
        (row["category_id"], rival["category_id"]) for row in rows for rival in row["rivals"]
    )
    for category in counts.scores:
        scores = [row["score"] for row in rows if row["category_id"] == category]
        assert counts.mean_score(category) == pytest.approx(np.mean(scores), abs=1e-9)
    by_decision = counts.by_decision()
    for place, decision in enumerate(DECISIONS):
        scores = [row["score"] for row in rows if row["decision"] == decision]
        expected = np.histogram(scores, NUM_BINS, (0, 1))[0]
        assert by_decision[place].tolist() == expected.tolist()
    assert counts.chances.sum() == 400
    assert counts.num_empty == 0


def test_every_stratum_has_its_smallest_and_no_more(tmp_path: Path) -> None:
    config = GalleryConfig(per_stratum=3, seed=5)
    counts = counted(write_made_run(tmp_path / "run"), config)
    rows = pq.read_table(tmp_path / "run" / "instances").to_pylist()
    ranks = ranks_of(pa.chunked_array([[row["instance_uid"] for row in rows]]), config.seed)
    expected: dict[tuple[int, int, int], list[int]] = {}
    for row, rank in zip(rows, ranks.tolist(), strict=True):
        band = min(int(row["score"] * NUM_BANDS), NUM_BANDS - 1)
        expected.setdefault((row["category_id"], DECISIONS.index(row["decision"]), band), []).append(rank)
    found = {name[1:]: kept for name, kept in counts.strata.items() if name[0] == "class"}
    assert found.keys() == expected.keys()
    for name, kept in found.items():
        assert sorted(c.rank for c in kept)[:3] == sorted(expected[name])[:3]


def test_choice_is_the_seed_s_and_covers_what_there_is(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", images_per_shard=200, num_classes=8)
    few = GalleryConfig(images=24)
    chosen = choose_images(counted(out), few)
    assert chosen == choose_images(counted(out), few)
    other = GalleryConfig(images=24, seed=1)
    assert {c.image_uid for c in chosen} != {c.image_uid for c in choose_images(counted(out, other), other)}
    assert len({c.image_uid for c in chosen}) == 24
    rows = pq.read_table(out / "instances").to_pylist()
    shown = [row for row in rows if row["image_uid"] in {c.image_uid for c in chosen}]
    assert {row["category_id"] for row in shown} == {row["category_id"] for row in rows}
    assert {code for row in shown for code in row["reason_codes"]} == {"R_CONTESTED", "R_TINY"}


def test_a_small_run_is_shown_whole(tmp_path: Path) -> None:
    """Strata that many images share must not leave the others out."""
    out = write_made_run(tmp_path / "run", num_shards=2, images_per_shard=30, num_classes=1)
    labelled = pq.read_table(out / "images").filter(pc.field("status") == "labelled")
    chosen = [c.image_uid for c in choose_images(counted(out), GalleryConfig())]
    assert sorted(chosen) == sorted(labelled.column("image_uid").to_pylist())


def test_pictures_come_from_few_shards(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=6, images_per_shard=10)
    config = GalleryConfig(images=40, shards=2)
    assert len({c.shard for c in choose_images(counted(out, config), config)}) == 2


def test_images_without_regions_and_failures_are_found(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1)
    codes = ["E_MAGIC", None, "E_MAGIC", "E_MAGIC", "E_MAGIC", "S_SMALL"]
    images = image_rows(
        "odd",
        6,
        status=["failed", "labelled", "failed", "failed", "failed", "skipped"],
        error_code=codes,
        error_stage=["decode" if code else None for code in codes],
        error_message=["no image" if code else None for code in codes],
    )
    write_tables(out, "odd", images, pq.read_table(out / "instances").slice(0, 0))
    counts = counted(out)
    assert counts.num_empty == 1
    assert [c.image_uid for c in counts.strata["empty", 0, 0, 0]] == uids("image odd", 6)[1:2]
    assert {code: len(some) for code, some in counts.examples.items()} == {"E_MAGIC": 3, "S_SMALL": 1}
    assert counts.examples["E_MAGIC"][0] == ("odd.tar", "000000", "decode", "no image")


def test_a_table_that_is_gone_is_named(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run")
    (out / "instances" / "shard-000001.parquet").unlink()
    counts = counted(out)
    assert counts.lost_tables == ["shard-000001.tar"]
    assert counts.num_regions == 200


def test_unknown_decisions_and_broken_scores_are_counted(tmp_path: Path) -> None:
    out = write_made_run(tmp_path / "run", num_shards=1, images_per_shard=1)
    table = pq.read_table(out / "instances" / "shard-000000.parquet")
    place = table.schema.get_field_index("decision")
    table = table.set_column(place, "decision", pa.array([None, "maybe", "accept", "review"]))
    scores = pa.array([float("nan"), -1.0, 1.0, 2.0], pa.float32())
    table = table.set_column(table.schema.get_field_index("score"), "score", scores)
    write_tables(out, "shard-000000", pq.read_table(out / "images"), table)
    counts = counted(out)
    assert counts.by_decision().sum(axis=1).tolist() == [1, 1, 0, 2]
    sums = dict.fromkeys(table.column("category_id").to_pylist(), 0.0)
    for category, score in zip(table.column("category_id").to_pylist(), [0.0, 0.0, 1.0, 1.0], strict=True):
        sums[category] += score
    assert counts.score_sums == sums


def test_no_rows_at_all(tmp_path: Path) -> None:
    write_manifest(tmp_path / "run")
    (tmp_path / "run" / "commits").mkdir()
    counts = counted(tmp_path / "run")
    assert counts.num_regions == 0
    assert choose_images(counts, GalleryConfig()) == []


def test_smallest_of_each() -> None:
    groups = np.array([2, 1, 2, 1, 2])
    ranks = np.array([5, 4, 3, 2, 1], np.uint64)
    assert sorted(smallest_of_each(groups, ranks, 1)) == [3, 4]
    assert sorted(smallest_of_each(groups, ranks, 2)) == [1, 2, 3, 4]
    assert smallest_of_each(groups[:0], ranks[:0], 2) == []


def test_ranks_are_even_and_follow_the_seed() -> None:
    column = pa.chunked_array([uids("x", 4000)])
    ranks = ranks_of(column, 0)
    assert abs((ranks / 2**64).mean() - 0.5) < 0.02
    assert (ranks == ranks_of(column, 0)).all()
    assert (ranks != ranks_of(column, 1)).all()
    assert ranks_of(pa.chunked_array([["ab", "AB", "é"]]), 0).shape == (3,)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="report images is 0"):
        GalleryConfig(images=0)
