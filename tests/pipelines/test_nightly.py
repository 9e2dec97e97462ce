"""What is new is decided by bytes, a night is committed once, and old nights lose only what ovsops wrote."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ovsops.errors import ConfigError, OutputError
from ovsops.text.vocabulary import Vocabulary
from pipelines.diff.canary import canary_labels
from pipelines.diff.config import DiffConfig
from pipelines.ledger import Ledger
from pipelines.nightly import (
    NightLedger,
    NightPlan,
    NightRecord,
    NightShard,
    check_night_name,
    labelled_shards,
    plan_night,
)
from pipelines.nightly_checks import (
    changed_since,
    check_vocabulary,
    compare_canaries,
    compare_populations_of,
    has_labels,
    sentences_of,
    told_by_canary,
)
from pipelines.nightly_prune import DAY_S, KeepConfig, delete_planned, plan_nights
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage
from tests.pipelines.made_runs import VOCABULARY, Made, Picture, write_run
from tests.tiny.shards import write_tar

LOCAL = StorageOptions()
END = 1_000_000.0


def archive(path: Path, text: str) -> Path:
    """An archive whose size does not depend on the text."""
    return write_tar(path, [("a.jpg", text.encode().ljust(64))])


def plan(corpus: Path, records: list[NightRecord], night: str = "tonight") -> NightPlan:
    return plan_night(night, expand_inputs([f"{corpus}/*.tar"]), records, LOCAL, began=0.0)


def record_of(found: NightPlan, number: int = 0, **changes: Any) -> NightRecord:
    """The night as if all of its plan had been labelled: with the SHA-256 of what was read."""
    shards = {each.name: each for each in expand_inputs([f"{changes.pop('corpus')}/*.tar"])}
    done = tuple(
        NightShard(
            **vars(shard) | {"sha256": hashlib.sha256(Path(shards[shard.name].url).read_bytes()).hexdigest()}
        )
        for shard in found.shards
    )
    known: dict[str, Any] = {
        "night": found.night,
        "number": number,
        "state": "done",
        "before": found.before,
        "shards": done,
    }
    return NightRecord(**known | changes)


def names(found: NightPlan) -> list[str]:
    return [shard.name for shard in found.shards]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    archive(tmp_path / "in" / "a.tar", "one")
    archive(tmp_path / "in" / "b.tar", "two")
    return tmp_path / "in"


def test_the_first_night_takes_everything_and_the_next_one_nothing(corpus: Path) -> None:
    first = plan(corpus, [])
    assert names(first) == ["a.tar", "b.tar"]
    assert (first.known, first.before) == (0, "")
    second = plan(corpus, [record_of(first, corpus=corpus)], "second")
    assert names(second) == []
    assert (second.known, second.before) == (2, "tonight")


def test_content_decides_not_names(corpus: Path) -> None:
    done = [record_of(plan(corpus, []), corpus=corpus)]
    os.utime(corpus / "a.tar", (1, 1))  # touched
    (corpus / "b.tar").rename(corpus / "moved.tar")
    archive(corpus / "b.tar", "of another night")  # an old name, new bytes, the same size
    archive(corpus / "c.tar", "three")
    shutil.copy(corpus / "c.tar", corpus / "d.tar")  # the same bytes twice in one night
    found = plan(corpus, done)
    assert names(found) == ["b.tar", "c.tar"]
    assert found.replaced == ("b.tar",)
    assert found.copies == {"moved.tar": "b.tar", "d.tar": "c.tar"}
    assert found.known == 3


def test_archives_that_begin_alike_are_told_apart(tmp_path: Path) -> None:
    """Equal size and equal first bytes: only the whole file tells."""
    for name, end in (("a", b"x"), ("b", b"y")):
        write_tar(tmp_path / f"{name}.tar", [("a.jpg", bytes(200_000)), ("b.jpg", end)])
    first = plan(tmp_path, [])
    assert names(first) == ["a.tar", "b.tar"]
    assert first.shards[0].head == first.shards[1].head
    done = [record_of(first, corpus=tmp_path)]
    shutil.copy(tmp_path / "b.tar", tmp_path / "again.tar")
    write_tar(tmp_path / "other.tar", [("a.jpg", bytes(200_000)), ("b.jpg", b"z")])
    second = plan(tmp_path, done)
    assert names(second) == ["other.tar"]
    assert second.copies == {"again.tar": "b.tar"}


def test_a_shard_that_was_not_labelled_is_new_again(corpus: Path) -> None:
    first = plan(corpus, [])
    whole = record_of(first, corpus=corpus)
    half = NightRecord(**vars(whole) | {"shards": whole.shards[:1]})
    assert names(plan(corpus, [half])) == ["b.tar"]


def test_a_folder_of_images_is_its_files(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"one")
    shards = expand_inputs([str(tmp_path / "photos")])
    first = plan_night("one", shards, [], LOCAL, began=0.0)
    record = NightRecord(night="one", number=0, state="done", before="", shards=first.shards)
    assert plan_night("two", shards, [record], LOCAL, began=0.0).shards == ()
    (tmp_path / "photos" / "b.jpg").write_bytes(b"two")
    grown = expand_inputs([str(tmp_path / "photos")])
    assert len(plan_night("two", grown, [record], LOCAL, began=0.0).shards) == 1


def test_a_night_is_begun_and_committed_once(tmp_path: Path, corpus: Path) -> None:
    ledger = NightLedger(open_storage(str(tmp_path / "out")))
    assert ledger.read_all() == []
    assert ledger.unfinished([]) is None
    found = plan(corpus, [], "one")
    ledger.begin(found)
    with pytest.raises(OutputError, match="begun before"):
        ledger.begin(found)
    assert ledger.unfinished([]) == "one"
    assert ledger.plan("one") == found
    assert ledger.step("one", "label") is None
    ledger.note_step("one", "label", {"seconds": 1.5})
    assert ledger.step("one", "label") == {"seconds": 1.5}
    record = record_of(found, corpus=corpus, alert={"state": "done"}, canary={"x": "y"})
    ledger.commit(record)
    with pytest.raises(OutputError, match="by another run"):
        ledger.commit(record)
    assert ledger.read_all() == [record]
    assert ledger.unfinished([record]) is None
    night_json = tmp_path / "out" / "nights" / "one" / "night.json"
    assert json.loads(night_json.read_text()) == {"state": "done"}
    night_json.unlink()  # killed between the record and what says so
    ledger.recover([record])
    assert json.loads(night_json.read_text()) == {"state": "done"}


def test_nights_are_in_the_order_of_their_commits(tmp_path: Path) -> None:
    ledger = NightLedger(open_storage(str(tmp_path)))
    for number, night in enumerate(["z", "b", "a", "m"]):
        ledger.commit(NightRecord(night=night, number=number, state="done", before="", shards=()))
    assert [record.night for record in ledger.read_all()] == ["z", "b", "a", "m"]


def test_names_of_nights(tmp_path: Path) -> None:
    ledger = NightLedger(open_storage(str(tmp_path)))
    assert ledger.new_name([], now=0.0) == "1970-01-01"
    done = [NightRecord(night=name, number=0, state="done", before="", shards=()) for name in ("1970-01-01",)]
    assert ledger.new_name(done, now=0.0) == "1970-01-01.2"
    assert check_night_name("2026-11-21.2") == "2026-11-21.2"
    for bad in ("", "..", "a/b", "-x", "x" * 61):
        with pytest.raises(ConfigError, match="--night"):
            check_night_name(bad)


def test_a_record_of_another_version_is_refused(tmp_path: Path) -> None:
    storage = open_storage(str(tmp_path))
    storage.put("ledger/one.json", b'{"version": 99}')
    with pytest.raises(OutputError, match="version 99"):
        NightLedger(storage).read_all()


# What nights are compared with

RED, BLUE = Made(1, box=(4, 4, 12, 12), score=0.3), Made(2, box=(0, 0, 60, 60), score=0.9)


def pictures(start: int, label: Made, count: int = 40) -> list[Picture]:
    return [Picture(f"{start + n}", (label,)) for n in range(count)]


def test_drift_names_a_changed_checkpoint_and_counts_shards(tmp_path: Path) -> None:
    before = open_storage(str(write_run(tmp_path / "a", {"s.tar": pictures(0, RED)})))
    same = open_storage(str(write_run(tmp_path / "b", {"t.tar": pictures(100, RED)})))
    other = open_storage(
        str(
            write_run(
                tmp_path / "c",
                {"u.tar": pictures(200, BLUE)},
                checkpoints={"mapper": "local sha256:" + "b" * 64},
            )
        )
    )
    quiet = compare_populations_of(before, same, DiffConfig(), of_data=True)
    assert not quiet["alarm"]
    assert quiet["named"] == []
    loud = compare_populations_of(before, other, DiffConfig(), of_data=True)
    assert loud["alarm"]
    assert loud["named"] == ["checkpoint mapper", "data: 2 shards that only one of the nights has"]
    assert [change["name"] for change in loud["changed"]["checkpoint"]] == ["mapper"]
    assert sentences_of(loud["changed"])[0].startswith("checkpoint mapper: local sha256:aaaa")
    json.dumps(loud, allow_nan=False)


def test_canaries(tmp_path: Path) -> None:
    then = open_storage(str(write_run(tmp_path / "a", {"s.tar": pictures(0, RED, 3)})))
    same = open_storage(str(write_run(tmp_path / "b", {"s.tar": pictures(0, RED, 3)})))
    moved = open_storage(
        str(write_run(tmp_path / "c", {"s.tar": pictures(0, BLUE, 3)}, versions={"ovsops": "9"}))
    )
    quiet = compare_canaries(canary_labels(then), canary_labels(same), changed_since(then, same))
    assert not quiet["differs"]
    loud = compare_canaries(canary_labels(then), canary_labels(moved), changed_since(then, moved))
    assert loud["differs"]
    assert (loud["changed"], loud["images"]) == (3, 3)
    assert loud["why"] == "code ovsops: 0.1.0 -> 9"
    unexplained = compare_canaries(canary_labels(then), canary_labels(moved), changed_since(then, same))
    assert "not deterministic" in unexplained["why"]
    assert "is gone" in compare_canaries(canary_labels(then), canary_labels(moved), None)["why"]


def test_the_canary_tells_data_from_labelling() -> None:
    drift = {
        "alarm": True,
        "suspects": ["data", "checkpoint"],
        "named": ["checkpoint mapper", "data: 2 shards"],
        "why": ["cannot be told apart"],
        "compared_with": "one",
    }
    same = {"differs": False, "changed": 0, "compared_with": "one"}
    moved = {"differs": True, "changed": 3, "compared_with": "one"}
    replaced = {"differs": True, "changed": 0, "compared_with": "one"}
    by_data = told_by_canary(drift, same)
    assert (by_data["suspects"], by_data["named"]) == (["data"], ["data: 2 shards"])
    assert "came with the shards" in by_data["why"][0]
    by_labelling = told_by_canary(drift, moved)
    assert by_labelling["suspects"] == ["checkpoint", "data"]
    assert "labelling itself changed" in by_labelling["why"][0]
    for unable in (None, replaced, {**same, "compared_with": "an older night"}):
        assert told_by_canary(drift, unable) == drift
    quiet = {**drift, "alarm": False}
    assert told_by_canary(quiet, same) == quiet


def test_ids_never_move_from_night_to_night(tmp_path: Path) -> None:
    before = open_storage(str(write_run(tmp_path / "a", {"s.tar": pictures(0, RED, 1)})))
    check_vocabulary(before, Vocabulary.from_mapping(VOCABULARY))
    classes = [{**VOCABULARY["classes"][0], "id": 2}, {**VOCABULARY["classes"][1], "id": 1}]
    with pytest.raises(OutputError, match="ids never move"):
        check_vocabulary(before, Vocabulary.from_mapping({**VOCABULARY, "classes": classes}))


# What old nights lose


@pytest.fixture
def old_nights(tmp_path: Path) -> tuple[Path, list[NightRecord]]:
    """Four nights a day apart; the third had nothing new."""
    records = []
    for number, night in enumerate(["one", "two", "three", "four"]):
        folder = tmp_path / "nights" / night
        ended = END + number * DAY_S
        done: tuple[NightShard, ...] = ()
        for step in ("canary",) if night == "three" else ("canary", "label"):
            write_run(folder / step, {f"{night}.tar": pictures(0, RED, 1)}, ended=ended)
            for path in folder.rglob("*"):
                os.utime(path, (ended, ended))
        if night != "three":
            commits = Ledger(open_storage(str(folder / "label"))).read_all()
            seen = [NightShard(id=c.shard, name=c.name, size=c.size, tag=c.tag, head="") for c in commits]
            begun = NightPlan(
                night=night, began=ended, shards=tuple(seen), known=0, copies={}, replaced=(), before=""
            )
            done = labelled_shards(begun, commits)
        (folder / "dataset").mkdir()
        (folder / "dataset" / "train.json").write_text("[]")
        records.append(
            NightRecord(
                night=night,
                number=number,
                state="done",
                before="",
                shards=done,
                canary={"x": "y"},
                alert={"began_unix": ended},
            )
        )
    return tmp_path, records


def test_old_nights_lose_labels_and_nothing_else(old_nights: tuple[Path, list[NightRecord]]) -> None:
    root, records = old_nights
    mine = root / "nights" / "one" / "label" / "mine.txt"
    mine.write_text("mine")
    os.utime(mine, (END, END))
    storage = open_storage(str(root))
    keep = KeepConfig(nights=1, min_age_days=0.0)
    found = plan_nights(storage, LOCAL, records, keep, now=END + 50 * DAY_S)
    assert set(found.plans) == {"one", "two", "three"}
    assert found.num_files > 0
    assert "one: " in next(found.lines())
    assert has_labels(open_storage(str(root / "nights" / "one" / "label"))), "a plan deletes nothing"
    deleted = delete_planned(storage, LOCAL, found)
    assert sum(len(each.deleted) for each in deleted.values()) == found.num_files
    left = {
        path.relative_to(root / "nights").as_posix()
        for path in (root / "nights").rglob("*")
        if path.is_file()
    }
    others = {f"{night}/dataset/train.json" for night in ("one", "two", "three", "four")}
    assert others | {"one/label/mine.txt"} == {path for path in left if not path.startswith("four/")} | {
        "four/dataset/train.json"
    }
    assert has_labels(open_storage(str(root / "nights" / "four" / "label")))
    assert plan_nights(storage, LOCAL, records, keep, now=END + 50 * DAY_S).num_files == 0


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        (KeepConfig(nights=2, min_age_days=0.0), {"one", "three"}),
        (KeepConfig(nights=3, min_age_days=0.0), {"three"}),
        (KeepConfig(nights=1, min_age_days=49.5), {"one"}),
        (KeepConfig(nights=1, min_age_days=100.0), set()),
    ],
)
def test_which_nights_lose_their_labels(
    old_nights: tuple[Path, list[NightRecord]], keep: KeepConfig, expected: set[str]
) -> None:
    root, records = old_nights
    found = plan_nights(open_storage(str(root)), LOCAL, records, keep, now=END + 50 * DAY_S)
    assert set(found.plans) == expected


def test_a_night_with_a_mark_stays(old_nights: tuple[Path, list[NightRecord]]) -> None:
    root, records = old_nights
    (root / "nights" / "one" / "KEEP").touch()
    (root / "nights" / "two" / "label" / "_lock.json").write_text("{}")
    found = plan_nights(
        open_storage(str(root)), LOCAL, records, KeepConfig(nights=1, min_age_days=0.0), now=1e9
    )
    assert found.kept == {"one": "it has a file KEEP"}
    assert set(found.plans["two"].runs) == {"canary"}
    assert "locked" in found.plans["two"].kept_runs["label"]


def test_keep_refuses_nonsense() -> None:
    with pytest.raises(ConfigError, match=r"keep\.nights is 0"):
        KeepConfig(nights=0)
    with pytest.raises(ConfigError, match="min_age_days"):
        KeepConfig(min_age_days=-1.0)
