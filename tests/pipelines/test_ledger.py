"""Commit, publish, recover: the states a shard can be in, without any job."""

import os
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.ledger import Commit, Ledger
from pipelines.parts import seal_records
from pipelines.rows import Closing
from pipelines.shards import Shard, expand_inputs
from pipelines.storage import Storage, StorageOptions, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "out"), StorageOptions())


def make_shard(name: str = "a.tar", tag: str = "1", size: int = 10) -> Shard:
    slug = name.removesuffix(".tar") + "-0123456789"
    return Shard(name=name, slug=slug, url=f"/data/{name}", size=size, tag=tag, kind="tar")


def record(index: int, key: str, error_code: str | None = None) -> dict:
    region = {
        "category_id": 3,
        "prompt": "cat",
        "language": "en",
        "bbox": [0.0, 0.0, 2.0, 2.0],
        "segmentation": {"size": [2, 2], "counts": "04"},
        "area": 4,
        "score": 0.5,
        "segmenter": "test",
        "reason_codes": [],
    }
    return {
        "index": index,
        "key": key,
        "sha256": "0" * 64,
        "notes": [],
        "error_code": error_code,
        "regions": None if error_code else [region],
    }


def commit_of(storage: Storage, shard: Shard, records: list[dict], replaces: tuple[str, ...] = ()) -> Commit:
    closing = Closing(num_rows=len(records), complete=True, sha256="f" * 64)
    sealed = seal_records(
        storage, shard=shard.id, name=shard.name, records=records, closing=closing, unique="run1"
    )
    return Commit.of(sealed, shard, run="run1", recipe_hash="h", replaces=replaces, seconds={})


def paths(storage: Storage) -> list[str]:
    return [info.path for info in storage.list()]


def test_a_shard_is_done_from_its_commit_on_and_published_by_the_next_start(storage: Storage) -> None:
    ledger, shard = Ledger(storage), make_shard()
    commit = commit_of(storage, shard, [record(0, "x"), record(1, "y", "E_TRUNCATED")])
    assert ledger.pending([shard], StorageOptions()).shards == (shard,)
    assert ledger.commit(commit)
    assert ledger.pending([shard], StorageOptions()).shards == ()
    assert f"images/{shard.id}.parquet" not in paths(storage)
    assert ledger.recover().published == (shard.id,)
    assert paths(storage) == [
        f"commits/{shard.id}.json",
        f"images/{shard.id}.parquet",
        f"instances/{shard.id}.parquet",
    ]
    assert ledger.recover().published == ()
    assert not Path(storage.url, "_parts").exists()


def test_the_first_commit_wins_and_the_late_one_changes_nothing(storage: Storage) -> None:
    ledger, shard = Ledger(storage), make_shard()
    assert ledger.commit(commit_of(storage, shard, [record(0, "x")]))
    before = storage.read(f"commits/{shard.id}.json")
    assert not ledger.commit(commit_of(storage, shard, [record(0, "x", "E_MODEL")]))
    assert storage.read(f"commits/{shard.id}.json") == before


def test_parts_that_nobody_committed_are_swept(storage: Storage) -> None:
    shard = make_shard()
    commit_of(storage, shard, [record(0, "x")])
    assert Ledger(storage).recover().swept == (shard.id,)
    assert paths(storage) == []
    assert not Path(storage.url, "_parts").exists()


def test_empty_folders_of_earlier_runs_go_and_parts_in_the_making_stay(storage: Storage) -> None:
    ledger, done, other = Ledger(storage), make_shard(), make_shard("b.tar")
    Path(storage.url, "_parts", "left-behind").mkdir(parents=True)
    ledger.recover()
    assert not Path(storage.url, "_parts").exists()
    commit = commit_of(storage, done, [record(0, "x")])
    commit_of(storage, other, [record(0, "x")])
    assert ledger.commit(commit)
    ledger.publish(commit)
    assert [path.name for path in Path(storage.url, "_parts").iterdir()] == [other.id]


def test_equal_rows_are_equal_bytes_in_any_order(storage: Storage) -> None:
    a = commit_of(storage, make_shard(), [record(0, "x"), record(1, "y")])
    b = commit_of(storage, make_shard(), [record(1, "y"), record(0, "x")])
    assert a.tables["images"]["sha256"] == b.tables["images"]["sha256"]


def test_the_same_key_and_bytes_twice_are_two_images(storage: Storage) -> None:
    commit = commit_of(storage, make_shard(), [record(0, "x"), record(1, "x", "E_DUPLICATE_KEY")])
    Ledger(storage).commit(commit)
    Ledger(storage).publish(commit)
    table = pq.read_table(Path(storage.url.removeprefix("file://")) / commit.tables["images"]["published"])
    assert len(set(table.column("image_uid").to_pylist())) == 2
    assert table.column("status").to_pylist() == ["labelled", "failed"]


def test_a_broken_invariant_is_never_committed(storage: Storage) -> None:
    commit = commit_of(storage, make_shard(), [record(0, "x")])
    object.__setattr__(commit, "read", 2)
    with pytest.raises(AssertionError, match=r"2 images read, but 1 labelled"):
        Ledger(storage).commit(commit)


def test_a_replaced_shard_takes_the_place_of_its_earlier_version(storage: Storage) -> None:
    ledger, old, new = Ledger(storage), make_shard(tag="1"), make_shard(tag="2", size=11)
    first = commit_of(storage, old, [record(0, "x")])
    ledger.commit(first)
    ledger.publish(first)
    pending = ledger.pending([new], StorageOptions())
    assert pending.replaces[new.id] == (old.id,)
    second = commit_of(storage, new, [record(0, "z")], replaces=pending.replaces[new.id])
    ledger.commit(second)
    ledger.recover()
    assert [p for p in paths(storage) if p.startswith(("images", "commits"))] == [
        f"commits/{new.id}.json",
        f"images/{new.id}.parquet",
    ]
    assert f"_superseded/images/{old.id}.parquet" in paths(storage)


def test_a_touched_shard_with_the_same_bytes_is_done(storage: Storage, tmp_path: Path) -> None:
    tar = tmp_path / "data" / "a.tar"
    tar.parent.mkdir()
    with tarfile.open(tar, "w"):
        pass
    ledger, (shard,) = Ledger(storage), expand_inputs([str(tar)])
    import hashlib

    commit = commit_of(storage, shard, [record(0, "x")])
    object.__setattr__(commit, "sha256", hashlib.sha256(tar.read_bytes()).hexdigest())
    ledger.commit(commit)
    os.utime(tar, (1, 1))
    (touched,) = expand_inputs([str(tar)])
    assert touched.id != shard.id
    assert ledger.pending([touched], StorageOptions()).shards == ()
    tar.write_bytes(b"\1" * tar.stat().st_size)
    assert len(ledger.pending(expand_inputs([str(tar)]), StorageOptions()).shards) == 1
