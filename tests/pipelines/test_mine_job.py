"""The mine job: vectors are made once, pairs are those of the whole corpus, the same bytes however it was interrupted.

Seen by eyes that cost nothing: the colours of a box. The real ones are in tests/jobs/test_mine.py.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import OutputError
from ovsops.regions.region_vectors import RegionVectors
from pipelines.embedding import EmbedConfig, EmbedJob, embed_units
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.mine_job import MINED_FILE, MineJob, stored_units, unmined
from pipelines.mining import CONFUSIONS_FILE, EXCLUSIVE_FILE, MiningConfig
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import run_units
from tests.tiny.colours import Colours
from tests.tiny.deaths import Deaths, Killed, files_of
from tests.tiny.labelled import label, some_images

OPTIONS = StorageOptions()
MANIFEST = {"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "mine"}


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> type[Colours]:
    monkeypatch.setattr(RegionVectors, "load", classmethod(lambda cls, *a, **k: Colours()))
    monkeypatch.setattr(Colours, "encoded", 0)
    return Colours


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelRun:
    folder = tmp_path_factory.mktemp("labelled")
    return label(folder / "labels", folder / "shards", [some_images(shard) for shard in range(3)])


def make_job(labels: LabelRun, out: Path, *, vectors: Path | None = None, **changes: Any) -> MineJob:
    common: dict[str, Any] = {"output": str(out), "manifest": MANIFEST, "labels": labels}
    if vectors is not None:
        units = stored_units(labels, str(vectors), OPTIONS)
        return MineJob(units=units, vectors=str(vectors), **common | changes)
    units = embed_units(labels, expand_inputs(labels.manifest["settings"]["input"]["shards"], OPTIONS))
    checkpoint = Checkpoint(source="miniature:fgclip2")
    embed = EmbedJob(checkpoint=checkpoint, config=EmbedConfig(images_at_once=3), units=units, **common)
    fields = {"mining": MiningConfig(k=3, min_score=-1.0, query_rows=20)}
    return MineJob(units=units, embed=embed, **common | fields | changes)


def run(job: MineJob) -> dict[str, Any]:
    return run_units(job, InlineEngine(OPTIONS), run="test")


def pairs_of(out: Path, kind: str) -> pd.DataFrame:
    return pd.read_parquet(out / "mined" / kind)


@pytest.fixture(scope="module")
def reference(labels: LabelRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RegionVectors, "load", classmethod(lambda cls, *a, **k: Colours()))
        run(make_job(labels, out))
    return out


def test_pairs_are_the_nearest_of_other_classes_in_other_images(labels: LabelRun, reference: Path) -> None:
    regions = pd.read_parquet(reference / "regions").set_index("uid")
    pairs = pairs_of(reference, "region")
    assert set(pairs.uid) == set(regions.index)
    vectors = np.stack(regions.vector.to_list()).astype(np.float64)
    cosines = vectors @ vectors.T
    places = {uid: place for place, uid in enumerate(regions.index)}
    classes = np.array([each[0] for each in regions.category_ids])
    groups = regions.group.to_numpy()
    for uid, own in pairs.groupby("uid"):
        place = places[uid]
        allowed = (classes != classes[place]) & (groups != groups[place])
        best = np.sort(cosines[place][allowed])[::-1][:3]
        assert own.sort_values("rank").score.to_numpy() == pytest.approx(best, abs=1e-6)
    images = pairs_of(reference, "image")
    assert set(images.kind) == {"image"}
    assert (images.uid != images.other_uid).all()


def test_the_summary_counts_vectors_pairs_and_confused_classes(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    assert summary["regions"] == {
        "read": 45,
        "embedded": 45,
        "left_out": 0,
        "by_reason": {},
        "invariant_holds": True,
    }
    assert summary["images"] == 15
    assert summary["mined"]["region"] == {"vectors": 45, "parts": 3, "parts_before": 0}
    assert summary["pairs"]["region"] == len(pairs_of(reference, "region")) == 135
    confusions = pd.read_parquet(reference / CONFUSIONS_FILE)
    assert confusions.groupby("kind")["count"].sum().to_dict() == {
        kind: count for kind, count in summary["pairs"].items() if count
    }
    first = summary["confusions"][0]
    assert first["kind"] == "region"
    assert first["class"] != first["other"]
    assert (reference / EXCLUSIVE_FILE).exists()
    assert not unmined(open_storage(str(reference), OPTIONS))


def test_killed_anywhere_it_leaves_the_same_bytes_and_encodes_no_committed_shard_again(
    labels: LabelRun,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    colours: type[Colours],
) -> None:
    deaths = Deaths(monkeypatch)
    with deaths.die_at(-1):
        run(make_job(labels, tmp_path / "whole"))
    assert files_of(tmp_path / "whole") == files_of(reference)
    seen = set()
    for point in range(3, 2 * deaths.count, 8):
        out = tmp_path / f"killed-{point}"
        with pytest.raises(Killed), deaths.die_at(point):
            run(make_job(labels, out))
        committed = len(list((out / "commits").glob("*.json"))) if (out / "commits").exists() else 0
        parts = len(list(out.glob("mined/*/*.parquet")))
        (out / "_lock.json").unlink(missing_ok=True)
        colours.encoded = 0
        summary = run(make_job(labels, out))
        assert colours.encoded == 5 * (3 - committed), point
        assert sum(mined["parts_before"] for mined in summary["mined"].values()) == parts, point
        assert files_of(out) == files_of(reference), point
        seen.add((committed, parts > 0))
    assert {(0, False), (1, False), (2, False), (3, False), (3, True)} <= seen


def test_stored_vectors_are_mined_with_other_numbers_and_no_model(
    labels: LabelRun, reference: Path, tmp_path: Path, colours: type[Colours]
) -> None:
    config = MiningConfig(k=1, min_score=0.0)
    summary = run(make_job(labels, tmp_path / "out", vectors=reference, mining=config, exclusive=False))
    assert colours.encoded == 0
    assert summary["regions"]["embedded"] == 45
    assert summary["mined"]["region"]["vectors"] == 45
    assert not (tmp_path / "out" / "regions").exists()
    first = pairs_of(reference, "region").query("rank == 0 and score >= 0").set_index("uid")
    found = pairs_of(tmp_path / "out", "region").set_index("uid")
    pd.testing.assert_frame_equal(found, first)
    assert summary["pairs"].keys() == {"region", "image"}


def test_stages_travel(labels: LabelRun, reference: Path, tmp_path: Path) -> None:
    """What Ray does with them: pickled on the driver, set up on a worker."""
    job = make_job(labels, tmp_path / "out")
    storage = open_storage(str(tmp_path / "out"), OPTIONS)
    for each in (job, make_job(labels, tmp_path / "out", vectors=reference)):
        data = pickle.dumps(each.stage(storage, "r"))
        assert len(data) < 4000
        (task, *_) = (unit.to_table() for unit in each.units)
        stage = pickle.loads(data)
        stage.setup()
        (result,) = stage.process(task)
        assert result["failed"].null_count == 1


def test_stored_vectors_that_are_not_whole(labels: LabelRun, reference: Path, tmp_path: Path) -> None:
    half = label(tmp_path / "labels", tmp_path / "shards", [some_images(0), some_images(8)])
    with pytest.raises(OutputError, match="1 of 2 labelled shards have no vectors"):
        make_job(half, tmp_path / "out", vectors=reference)
    out = tmp_path / "vectors"
    run(make_job(half, out))
    path = next((out / "regions").iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    summary = run(make_job(half, tmp_path / "out", vectors=out))
    (message,) = summary["shards"]["failed"].values()
    assert message.startswith("E_LABELS_CHANGED: ")
    assert "mined" not in summary
    assert not (tmp_path / "out" / "mined").exists()


def test_more_labels_are_embedded_alone_and_mined_with_the_rest(
    tmp_path: Path, colours: type[Colours]
) -> None:
    shards = [some_images(0), some_images(1)]
    labels = label(tmp_path / "labels", tmp_path / "shards", shards)
    run(make_job(labels, tmp_path / "out"))
    colours.encoded = 0
    more = label(tmp_path / "labels", tmp_path / "shards", [*shards, some_images(2)])
    summary = run(make_job(open_label_run(more.url, OPTIONS), tmp_path / "out"))
    assert colours.encoded == 5
    assert summary["mined"]["region"] == {"vectors": 45, "parts": 3, "parts_before": 0}
    run(make_job(more, tmp_path / "fresh"))
    assert files_of(tmp_path / "out") == files_of(tmp_path / "fresh")


def test_pairs_that_were_lost_are_named_and_mined_again(
    labels: LabelRun, reference: Path, tmp_path: Path
) -> None:
    run(make_job(labels, tmp_path / "out"))
    lost = next((tmp_path / "out" / "mined" / "region").iterdir())
    lost.unlink()
    storage = open_storage(str(tmp_path / "out"), OPTIONS)
    assert unmined(storage) == [f"mined/region/{lost.name}"]
    run(make_job(labels, tmp_path / "out"))
    assert files_of(tmp_path / "out") == files_of(reference)
    assert (tmp_path / "out" / MINED_FILE).exists()
