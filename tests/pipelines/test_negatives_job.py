"""The negatives job: a row for every region, ten or a reason, the same bytes however it was interrupted."""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError, OutputError
from ovsops.negatives.candidates import CandidateNegatives, RegionContext
from ovsops.negatives.check import set_faults
from ovsops.negatives.config import NegativeConfig
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.negatives import CORPUS, DrawConfig, NegativesJob, negatives_units
from pipelines.negatives_audit import AuditConfig
from pipelines.negatives_checks import Checks
from pipelines.negatives_validators import MarginLook, ValidateConfig
from pipelines.readers import read_shard
from pipelines.runner import InlineEngine, Step
from pipelines.schemas import NEGATIVES, SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions
from pipelines.units import run_units
from tests.tiny.deaths import Deaths, Killed, files_of
from tests.tiny.labelled import label, some_images

QUICK = NegativeConfig(max_iterations=2)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelRun:
    folder = tmp_path_factory.mktemp("labelled")
    return label(folder / "labels", folder / "shards", [some_images(shard) for shard in range(3)])


def make_job(labels: LabelRun, out: Path, **changes: Any) -> NegativesJob:
    fields: dict[str, Any] = {
        "output": str(out),
        "units": negatives_units(labels),
        "manifest": {"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "def"},
        "labels": labels,
        "negatives": QUICK,
    }
    return NegativesJob(**fields | changes)


def run(job: NegativesJob, engine: InlineEngine | None = None) -> dict[str, Any]:
    return run_units(job, engine or InlineEngine(job.storage), run="test")


@pytest.fixture(scope="module")
def reference(labels: LabelRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reference") / "out"
    run(make_job(labels, out))
    return out


def table(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "negatives")


def test_every_region_has_a_row_with_ten_negatives_or_a_reason(labels: LabelRun, reference: Path) -> None:
    rows, regions = table(reference), pd.read_parquet(Path(labels.url) / "instances")
    assert rows.instance_uid.tolist() == regions.instance_uid.tolist()
    made = rows[rows.negatives.notna()]
    assert set(rows[rows.negatives.isna()].reason) == {"R_NO_TEXT"}
    assert made.reason.isna().all()
    assert {len(texts) for texts in made.negatives} == {len(kinds) for kinds in made.types} == {10}
    assert not [f for row in made.itertuples() for f in set_faults(row.positive, list(row.negatives))]
    assert set(made.language) == {"en", "zh"}
    schema = pq.read_schema(next((reference / "negatives").iterdir()))
    assert schema.names == NEGATIVES.names
    assert schema.metadata[b"ovsops.schema_version"] == str(SCHEMA_VERSION).encode()


def test_the_summary_counts_every_region(reference: Path) -> None:
    summary = json.loads((reference / "summary.json").read_text())
    rows = table(reference)
    regions = summary["regions"]
    assert regions["read"] == len(rows) == 45
    assert regions["with_negatives"] == rows.negatives.notna().sum() == 42
    assert regions["by_reason"] == {"R_NO_TEXT": 3}
    assert regions["invariant_holds"]
    assert sum(summary["types"].values()) == 420
    assert summary["corpus"]["captions"] == {"en": 33, "zh": 9}
    assert summary["state"] == "done"
    assert summary["over_limits"] == []


def test_what_waits_for_a_person_gets_no_negatives_unless_that_is_asked_for(tmp_path: Path) -> None:
    images = [replace(image, waiting=(0,)) for image in some_images(0)]
    doubted = label(tmp_path / "labels", tmp_path / "shards", [images])
    summary = run(make_job(doubted, tmp_path / "out"))
    assert summary["regions"]["by_reason"] == {"R_REVIEW": 5, "R_NO_TEXT": 1}
    assert (
        sum(summary["corpus"]["captions"].values()) == 9
    )  # words of captions that may be wrong do not count
    rows = table(tmp_path / "out")
    assert rows[rows.reason == "R_REVIEW"].positive.notna().all()
    all_of_them = run(make_job(doubted, tmp_path / "all", draw=DrawConfig(review=True)))
    assert all_of_them["regions"]["by_reason"] == {"R_NO_TEXT": 1}


class LastFirst(InlineEngine):
    """Does the last unit first."""

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        return super().units(tasks[::-1], step)


def test_the_order_of_units_changes_no_byte(labels: LabelRun, reference: Path, tmp_path: Path) -> None:
    backwards = replace(
        make_job(labels, tmp_path / "out"), labels=replace(labels, commits=labels.commits[::-1])
    )
    run(backwards, LastFirst(StorageOptions()))
    assert files_of(tmp_path / "out") == files_of(reference)


def test_killed_at_changes_of_the_disk_it_leaves_the_same_bytes(
    labels: LabelRun, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = Deaths(monkeypatch)
    with deaths.die_at(-1):
        run(make_job(labels, tmp_path / "whole"))
    changes = deaths.count
    assert changes > 10
    for point in range(0, 2 * changes, 3):  # odd and even: before a change and after one
        out = tmp_path / f"killed-{point}"
        with pytest.raises(Killed), deaths.die_at(point):
            run(make_job(labels, out))
        (out / "_lock.json").unlink(missing_ok=True)
        summary = run(make_job(labels, out))
        assert summary["shards"] == {"committed": 3, "pending": 0, "failed": {}}, point
        assert files_of(out) == files_of(reference), point


def test_a_run_goes_on_with_the_corpus_that_it_began_with(tmp_path: Path) -> None:
    shards = [some_images(0), some_images(1)]
    labels = label(tmp_path / "labels", tmp_path / "shards", shards)
    run(make_job(labels, tmp_path / "out"))
    before = files_of(tmp_path / "out")
    more = label(tmp_path / "labels", tmp_path / "shards", [*shards, some_images(7)])
    summary = run(make_job(more, tmp_path / "out"))
    after = files_of(tmp_path / "out")
    assert summary["this_run"]["shards"] == 1
    assert len(table(tmp_path / "out")) == 45
    unchanged = {path for path in before if not path.startswith("audit")}
    assert {path: after[path] for path in unchanged} == {path: before[path] for path in unchanged}
    assert CORPUS in unchanged


def test_a_shard_that_was_labelled_anew_gets_new_negatives(tmp_path: Path) -> None:
    labels = label(tmp_path / "labels", tmp_path / "shards", [some_images(0), some_images(1)])
    run(make_job(labels, tmp_path / "out"))
    other = label(tmp_path / "labels", tmp_path / "shards", [some_images(0), some_images(5)])
    summary = run(make_job(other, tmp_path / "out"))
    assert summary["shards"]["committed"] == 2
    regions = pd.read_parquet(tmp_path / "labels" / "instances")
    assert table(tmp_path / "out").instance_uid.tolist() == regions.instance_uid.tolist()


def test_a_changed_table_fails_its_shard_alone_and_the_next_run_mends_it(tmp_path: Path) -> None:
    labels = label(tmp_path / "labels", tmp_path / "shards", [some_images(0), some_images(1)])
    run(make_job(labels, tmp_path / "other"))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / CORPUS).write_bytes((tmp_path / "other" / CORPUS).read_bytes())
    path = tmp_path / "labels" / labels.commits[0].tables["instances"]["published"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    summary = run(make_job(labels, tmp_path / "out"))
    (message,) = summary["shards"]["failed"].values()
    assert message.startswith("E_LABELS_CHANGED: ")
    assert summary["shards"]["pending"] == 1
    assert summary["over_limits"] == ["1 shard failed (limits.max_failed_shards is 0)"]
    path.write_bytes(whole)
    assert run(make_job(labels, tmp_path / "out"))["over_limits"] == []
    assert files_of(tmp_path / "out") == files_of(tmp_path / "other")


def test_a_changed_table_ends_a_run_that_has_no_corpus_yet(tmp_path: Path) -> None:
    labels = label(tmp_path / "labels", tmp_path / "shards", [some_images(0)])
    (tmp_path / "labels" / labels.commits[0].tables["instances"]["published"]).unlink()
    with pytest.raises(OutputError, match="is committed, but not there"):
        run(make_job(labels, tmp_path / "out"))


@dataclass(frozen=True)
class Refuses:
    """A validator that drops every text with one of some words."""

    words: tuple[str, ...]
    seen: list[RegionContext] = field(default_factory=list)

    def build(self) -> Checks:
        return Checks(validators=[self])

    def validate(
        self, candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext]
    ) -> list[list[str | None]]:
        self.seen.extend(contexts)
        return [
            ["V_MARGIN" if any(word in text for word in self.words) else None for text in each.texts]
            for each in candidates
        ]


def test_others_take_the_place_of_what_a_validator_drops(
    labels: LabelRun, reference: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(make_job(labels, out, validators=Refuses(("blue", "蓝")), draw=DrawConfig(spare=40)))
    rows = table(out)
    made = rows[rows.negatives.notna()]
    assert len(made) == 42
    assert not any("blue" in text or "蓝" in text for texts in made.negatives for text in texts)
    drops = made.dropped.map(list)
    assert drops.map(len).max() == 1
    assert drops[drops.map(len) > 0].map(lambda some: some[0].startswith("V_MARGIN:")).all()
    before = table(reference).set_index("instance_uid").negatives
    for row in made.itertuples():
        kept = [text for text in before[row.instance_uid] if "blue" not in text and "蓝" not in text]
        assert list(row.negatives)[: len(kept)] == kept
    summary = json.loads((out / "summary.json").read_text())
    assert (
        summary["candidates_dropped"]["V_MARGIN"]
        == drops.map(lambda some: sum(int(drop.split(":")[1]) for drop in some)).sum()
    )


def test_fewer_than_ten_are_none(labels: LabelRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(make_job(labels, out, validators=Refuses(("a ", "的"))))
    assert summary["regions"]["by_reason"] == {"V_TOO_FEW": 42, "R_NO_TEXT": 3}
    rows = table(out)
    assert rows.negatives.isna().all()
    assert rows[rows.reason == "V_TOO_FEW"].positive.notna().all()


def test_validators_are_told_what_else_is_known_of_a_region(labels: LabelRun, tmp_path: Path) -> None:
    refuses = Refuses(())
    run(make_job(labels, tmp_path / "out", validators=refuses))
    context = refuses.seen[0]
    assert context.captions[0] == "a red ball"
    assert context.labels == ("ball",)
    assert context.neighbours == ()


def test_labels_that_were_accepted_are_no_negatives(labels: LabelRun, tmp_path: Path) -> None:
    factory = ValidateConfig().factory(labels.manifest["vocabulary"])
    summary = run(make_job(labels, tmp_path / "out", validators=factory))
    assert summary["regions"]["invariant_holds"]
    assert summary["regions"]["with_negatives"] == 42


def test_the_prompt_stands_for_a_caption_where_it_may(labels: LabelRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(make_job(labels, out, draw=DrawConfig(texts=("caption_short", "prompt"))))
    rows = table(out)
    assert rows.negatives.notna().all()
    assert set(rows.types.map(lambda kinds: kinds[0])[rows.positive.str.split().str.len() == 1]) >= {"object"}


def test_the_sample_for_a_reader_has_every_language_and_type(reference: Path) -> None:
    lines = [json.loads(line) for line in (reference / "audit.jsonl").read_text().splitlines()]
    assert len(lines) == 42
    assert {line["stratum"].split()[0] for line in lines} == {"en", "zh"}
    sheet = list(csv.DictReader(io.StringIO((reference / "audit.csv").read_bytes().decode("utf-8-sig"))))
    assert [row["instance_uid"] for row in sheet] == [line["instance_uid"] for line in lines]
    assert sheet[0]["negatives"].count("\n") == 9


def test_a_small_sample_takes_strata_in_turn(labels: LabelRun, tmp_path: Path) -> None:
    summary = run(make_job(labels, tmp_path / "out", audit=AuditConfig(rows=3)))
    assert summary["audit"]["rows"] == 3
    lines = [json.loads(line) for line in (tmp_path / "out" / "audit.jsonl").read_text().splitlines()]
    assert len({line["stratum"] for line in lines}) == 3


def test_what_is_no_label_run(tmp_path: Path, reference: Path) -> None:
    with pytest.raises(OutputError, match=r"holds no run\.json"):
        open_label_run(str(tmp_path), StorageOptions())
    with pytest.raises(OutputError, match="no output of the label job"):
        open_label_run(str(reference), StorageOptions())
    manifest: Mapping[str, Any] = {"schema_version": 2, "vocabulary": {}}
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="has schema 2"):
        open_label_run(str(tmp_path), StorageOptions())
    (tmp_path / "run.json").write_text(json.dumps({**manifest, "schema_version": SCHEMA_VERSION}))
    with pytest.raises(OutputError, match="no committed shard yet"):
        open_label_run(str(tmp_path), StorageOptions())


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (DrawConfig, {"texts": ()}, "name one column or more"),
        (DrawConfig, {"spare": -1}, "spare is -1"),
        (AuditConfig, {"rows": 0}, "rows is 0"),
    ],
)
def test_what_is_no_config(kind: type, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**fields)


class Norms:
    """Sees of a region the mean colour of its box, and of a text nothing; remembers which images it was shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.seen: list[RegionContext] = []

    def build(self) -> Checks:
        return Checks(validators=[self], looker=self)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.zeros((len(texts), 3))

    def features(
        self,
        source: Iterator[Mapping[str, Any]],
        images: Mapping[int, str],
        regions: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> dict[str, np.ndarray]:
        found = {}
        for row in source:
            self.shown.append(row["key"])
            for region in regions.get(images[row["index"]], ()):
                found[region["instance_uid"]] = np.array([len(row["image"]), *region["bbox"][:2]])
        return found

    def validate(
        self, candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext]
    ) -> list[list[str | None]]:
        self.seen.extend(contexts)
        return [[None] * len(each.texts) for each in candidates]


def test_a_validator_that_looks_at_pixels_gets_them(labels: LabelRun, tmp_path: Path) -> None:
    sources = expand_inputs(labels.manifest["settings"]["input"]["shards"], StorageOptions())
    norms = Norms()
    run(make_job(labels, tmp_path / "out", validators=norms, units=negatives_units(labels, sources)))
    assert len(norms.shown) == 18
    assert len(norms.seen) == 42
    assert all(context.feature is not None for context in norms.seen)
    missing = make_job(labels, tmp_path / "no_images", validators=Norms())
    assert {m.partition(":")[0] for m in run(missing)["shards"]["failed"].values()} == {"E_SHARD_MISSING"}


def test_fg_clip_2_sees_regions_whatever_comes_with_them(labels: LabelRun) -> None:
    from pipelines.negatives_margin import RegionLooker

    looker = RegionLooker(MarginLook(fgclip2=Checkpoint(source="miniature:fgclip2")))
    (shard, *_) = expand_inputs(labels.manifest["settings"]["input"]["shards"], StorageOptions())
    rows = [row for table in read_shard(shard) for row in table.to_pylist() if row["image"]]
    uids = {row["index"]: str(row["index"]) for row in rows}
    boxes = {
        uid: [{"instance_uid": f"{uid}-{x}", "bbox": [x, 8.0, 30.0, 40.0]} for x in (0.0, 40.0)]
        for uid in uids.values()
    }
    boxes["1"].append({"instance_uid": "nothing", "bbox": [10.0, 10.0, 0.0, 0.0]})
    together = looker.features(iter(rows), uids, boxes)
    assert together.keys() == {f"{uid}-{x}" for uid in uids.values() for x in (0.0, 40.0)}
    alone = looker.features(iter(rows[3:4]), uids, {"3": boxes["3"]})
    for uid, feature in alone.items():
        assert np.linalg.norm(feature) == pytest.approx(1, abs=1e-5)
        assert feature == pytest.approx(together[uid], abs=1e-5)
    assert np.linalg.norm(looker.encode(["a red ball", "a blue ball"]), axis=1) == pytest.approx(1, abs=1e-5)
