import hashlib
import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovsops.errors import ConfigError, OutputError, OvsopsError
from ovsops.text.vocabulary import ClassSpec, Vocabulary
from pipelines.labelled_shards import LabelRun
from pipelines.mining import (
    EMBEDDED,
    EXCLUSIVE_FILE,
    MINED,
    TASK,
    EmbeddedFiles,
    MinedParts,
    MineStage,
    MiningConfig,
    confusions_of,
    mine_exclusive,
    mine_files,
)
from pipelines.parts import table_to_parquet
from pipelines.runner import Engine, InlineEngine, RayConfig, RayEngine
from pipelines.schemas import INSTANCES
from pipelines.storage import StorageOptions, open_storage

OPTIONS = StorageOptions()
VOCABULARY = Vocabulary(
    name="v",
    languages=("en",),
    classes=(
        ClassSpec(id=3, name="animal"),
        ClassSpec(id=5, name="dog", parent="animal"),
        ClassSpec(id=9, name="chair"),
        ClassSpec(id=11, name="table"),
    ),
)
IDS = (3, 5, 9, 11)


def corpus(count: int = 120, width: int = 24) -> pa.Table:
    generator = np.random.default_rng(3)
    vectors = generator.normal(size=(count, width)).astype(np.float32)
    vectors[::5] = vectors[0]  # ties
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = {
        "uid": [f"r{i:03d}" for i in generator.permutation(count)],
        "group": [f"image {i}" for i in generator.integers(count // 3, size=count)],
        "category_ids": [[IDS[i]] for i in generator.integers(4, size=count)],
        "vector": vectors.tolist(),
    }
    return pa.table(rows, schema=EMBEDDED)


def write(folder: Path, table: pa.Table, cuts: Sequence[int]) -> str:
    folder.mkdir()
    for number, (a, b) in enumerate(zip([0, *cuts], [*cuts, table.num_rows], strict=True)):
        pq.write_table(table.slice(a, b - a), folder / f"part-{number}.parquet", row_group_size=17)
    return str(folder)


def mine(embeddings: str, out: Path, engine: Engine, **fields) -> MinedParts:
    config = MiningConfig(**{"k": 4, "query_rows": 50, "block_rows": 13, "min_score": -1.0, **fields})
    files = EmbeddedFiles.list(embeddings, OPTIONS)
    return mine_files(files, open_storage(str(out), OPTIONS), VOCABULARY, config, engine)


def mined(out: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in sorted((out / "mined").rglob("*.parquet"))])


def by_hand(table: pa.Table, k: int) -> list[tuple[str, str]]:
    rows = table.to_pylist()
    vectors = np.array([row["vector"] for row in rows], np.float64)
    cosines = vectors @ vectors.T
    found = []
    for q, query in enumerate(rows):
        own = query["category_ids"][0]
        pairs = [
            (-round(cosines[q, n], 6), other["uid"])
            for n, other in enumerate(rows)
            if other["category_ids"][0] != own
            and {own, other["category_ids"][0]} != {3, 5}
            and other["group"] != query["group"]
        ]
        found += [(query["uid"], uid) for _, uid in sorted(pairs)[:k]]
    return found


def test_the_nearest_of_other_classes_and_images(tmp_path: Path) -> None:
    table = corpus()
    with InlineEngine(OPTIONS) as engine:
        parts = mine(write(tmp_path / "e", table, [40, 41, 100]), tmp_path / "o", engine)
    found = mined(tmp_path / "o")
    assert found.schema == MINED
    assert list(zip(found["uid"].to_pylist(), found["other_uid"].to_pylist(), strict=True)) == by_hand(
        table, 4
    )
    assert found["rank"].to_pylist() == [0, 1, 2, 3] * 120
    category = dict(zip(table["uid"].to_pylist(), table["category_ids"].to_pylist(), strict=True))
    for row in found.to_pylist():
        assert [row["other_category_id"]] == category[row["other_uid"]]
        assert [row["category_id"]] == category[row["uid"]]
    assert (parts.rows, len(parts.paths), parts.before) == (120, 3, 0)
    confusions = confusions_of(open_storage(str(tmp_path / "o"), OPTIONS), parts.paths, "region").to_pylist()
    assert {row["kind"] for row in confusions} == {"region"}
    assert sum(row["count"] for row in confusions) == 480
    pairs = [row for row in found.to_pylist() if (row["category_id"], row["other_category_id"]) == (9, 11)]
    (one,) = [row for row in confusions if (row["category_id"], row["other_category_id"]) == (9, 11)]
    assert one["count"] == len(pairs)
    assert one["mean_score"] == pytest.approx(np.mean([row["score"] for row in pairs]))


def test_no_cut_of_files_or_blocks_changes_the_bytes(tmp_path: Path) -> None:
    table = corpus()
    with InlineEngine(OPTIONS) as engine:
        mine(write(tmp_path / "e1", table, []), tmp_path / "o1", engine, block_rows=120)
        mine(write(tmp_path / "e2", table, [1, 60, 119]), tmp_path / "o2", engine, block_rows=7)
    for path in sorted((tmp_path / "o1").rglob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "o2" / path.relative_to(tmp_path / "o1")).read_bytes()


def test_a_killed_run_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    embeddings = write(tmp_path / "e", corpus(), [60])
    with InlineEngine(OPTIONS) as engine:
        mine(embeddings, tmp_path / "o", engine)
        before = {path: path.read_bytes() for path in (tmp_path / "o").rglob("*.parquet")}
        sorted((tmp_path / "o" / "mined").rglob("*.parquet"))[1].unlink()
        assert mine(embeddings, tmp_path / "o", engine).before == 2
    assert {path: path.read_bytes() for path in before} == before


def test_another_corpus_is_mined_from_the_beginning(tmp_path: Path) -> None:
    embeddings = write(tmp_path / "e", corpus(), [60])
    with InlineEngine(OPTIONS) as engine:
        mine(embeddings, tmp_path / "o", engine)
        pq.write_table(corpus(30, 24).slice(0, 7), tmp_path / "e" / "more.parquet")
        assert mine(embeddings, tmp_path / "o", engine).before == 0
        mine(embeddings, tmp_path / "fresh", engine)
    fresh = {path.name: path.read_bytes() for path in (tmp_path / "fresh").rglob("*.parquet")}
    assert {path.name: path.read_bytes() for path in (tmp_path / "o").rglob("*.parquet")} == fresh


def test_pairs_that_are_far_are_not_written(tmp_path: Path) -> None:
    with InlineEngine(OPTIONS) as engine:
        mine(write(tmp_path / "e", corpus(), []), tmp_path / "o", engine, min_score=0.9)
    found = mined(tmp_path / "o")
    assert 0 < found.num_rows < 480
    assert min(found["score"].to_pylist()) >= 0.9


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"category_ids": [[4]]}, r"categories \[4\] are not in the vocabulary"),
        ({"category_ids": [[]]}, "a row without a category"),
        ({"vector": [[0.5, 0.5]]}, "row 0 has length"),
        (
            {
                "uid": list("abc"),
                "group": list("abc"),
                "category_ids": [[3]] * 3,
                "vector": [[1, 0], [1], [1, 0, 0]],
            },
            r"vectors of \['1', '2', '3'\] numbers",
        ),
    ],
)
def test_embeddings_that_cannot_be_mined(tmp_path: Path, change: dict, match: str) -> None:
    row = {"uid": ["a"], "group": ["g"], "category_ids": [[3]], "vector": [[1.0, 0.0]]} | change
    embeddings = write(tmp_path / "e", pa.table(row, schema=EMBEDDED), [])
    with (
        InlineEngine(OPTIONS) as engine,
        pytest.raises(OvsopsError, match=match),
    ):
        mine(embeddings, tmp_path / "o", engine)


def test_folders_that_hold_none(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="holds no Parquet file of embeddings"):
        EmbeddedFiles.list(str(tmp_path), OPTIONS)
    pq.write_table(pa.table({"uid": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(OutputError, match="has no column group, category_ids, vector"):
        EmbeddedFiles.list(str(tmp_path), OPTIONS)
    with pytest.raises(ConfigError, match=r"mining\.k is 0"):
        MiningConfig(k=0)
    with pytest.raises(ConfigError, match="min_score is 2"):
        MiningConfig(min_score=2.0)


def test_a_stage_travels_and_does_its_task_anywhere(tmp_path: Path) -> None:
    """What Ray does with it, without Ray: pickled on the driver, set up and run on a worker, twice."""
    files = EmbeddedFiles.list(write(tmp_path / "e", corpus(), [40]), OPTIONS)
    config = MiningConfig(k=4, min_score=-1.0, block_rows=50)
    data = pickle.dumps(MineStage(files, str(tmp_path / "o"), config, IDS, [(1, 0)]))
    assert len(data) < 2000
    task = pa.table({"first": [30], "end": [60]}, schema=TASK)
    written = []
    for _ in range(2):
        stage = pickle.loads(data)
        stage.setup()
        (done,) = stage.process(task)
        written.append((tmp_path / "o" / done["path"][0].as_py()).read_bytes())
    assert done["pairs"].to_pylist() == [30 * 4]
    assert written[0] == written[1]


def test_losers_of_exclusive_groups(tmp_path: Path) -> None:
    rows = [
        {"instance_uid": "a", "category_id": 5, "rivals": [{"category_id": 9, "score": 0.25}]},
        {"instance_uid": "b", "category_id": 9, "rivals": []},
        {
            "instance_uid": "c",
            "category_id": 9,
            "rivals": [{"category_id": 3, "score": 0.25}, {"category_id": 11, "score": 0.5}],
        },
    ]
    schema = pa.schema([INSTANCES.field(name) for name in ("instance_uid", "category_id", "rivals")])
    data = table_to_parquet(pa.Table.from_pylist(rows, schema=schema))
    labels_storage = open_storage(str(tmp_path / "labels"), OPTIONS)
    labels_storage.put("instances/s.parquet", data)
    sealed = {"published": "instances/s.parquet", "sha256": hashlib.sha256(data).hexdigest()}
    commit = SimpleNamespace(tables={"instances": sealed})
    labels = LabelRun(url=str(tmp_path / "labels"), storage=OPTIONS, manifest={}, commits=(commit,))  # type: ignore[arg-type]
    output = open_storage(str(tmp_path / "o"), OPTIONS)
    assert mine_exclusive(labels, output) == 3
    found = pq.read_table(tmp_path / "o" / EXCLUSIVE_FILE)
    assert found.schema == MINED
    pairs = [
        (row["uid"], row["category_id"], row["other_category_id"], row["score"]) for row in found.to_pylist()
    ]
    assert pairs == [("a", 5, 9, 0.25), ("c", 9, 11, 0.5), ("c", 9, 3, 0.25)]
    assert found["rank"].to_pylist() == [0, 0, 1]
    assert set(found["kind"].to_pylist()) == {"exclusive"}
    assert found["other_uid"].null_count == 3


@pytest.mark.ray
def test_ray_data_writes_the_same_bytes(tmp_path: Path, local_ray: None) -> None:
    embeddings = write(tmp_path / "e", corpus(), [40, 80])
    with InlineEngine(OPTIONS) as engine:
        mine(embeddings, tmp_path / "inline", engine, query_rows=30)
    with RayEngine(RayConfig(), OPTIONS) as ray_engine:
        mine(embeddings, tmp_path / "ray", ray_engine, query_rows=30)
    for path in sorted((tmp_path / "inline").rglob("*.parquet")):
        assert path.read_bytes() == (tmp_path / "ray" / path.relative_to(tmp_path / "inline")).read_bytes()
