"""A sample of a job: which images it takes, that its rows are the run's own, and what it measures."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

from ovsops.errors import ConfigError
from pipelines.label import LabelJob
from pipelines.readers import ReaderConfig, read_shard
from pipelines.sample_run import (
    SampleConfig,
    SampleRun,
    blocks,
    estimated_images,
    read_head,
    run_sample,
    shares,
    spread,
    statuses,
)
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions
from pipelines.timed_parts import PartClock, TimedFactory
from tests.pipelines.test_label_job import make_job, run_inline
from tests.tiny.shards import write_shards, write_tar


@pytest.mark.parametrize(
    ("number", "wanted", "places"),
    [(10, 2, [2, 7]), (9, 3, [1, 4, 7]), (3, 8, [0, 1, 2]), (5, 1, [2]), (0, 4, []), (7, 7, [*range(7)])],
)
def test_places_are_the_middles_of_equal_stretches(number: int, wanted: int, places: list[int]) -> None:
    assert spread(number, wanted) == places


@pytest.mark.parametrize(
    ("available", "wanted", "taken"),
    [([9, 9, 9], 6, [2, 2, 2]), ([1, 9, 9], 7, [1, 3, 3]), ([2, 0, 2], 64, [2, 0, 2]), ([5, 5], 3, [2, 1])],
)
def test_what_a_small_shard_lacks_comes_from_the_others(
    available: list[int], wanted: int, taken: list[int]
) -> None:
    assert shares(available, wanted) == taken


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sampled")
    write_shards(folder, num_shards=4, images_per_shard=7, broken_every=9)
    return str(folder / "*.tar")


@pytest.fixture(scope="module")
def job(inputs: str, tmp_path_factory: pytest.TempPathFactory) -> LabelJob:
    return make_job([inputs], tmp_path_factory.mktemp("scratch") / "run")


@pytest.fixture(scope="module")
def tried(job: LabelJob) -> SampleRun:
    run = run_sample(job, job.shards, SampleConfig(images=10, shards=3))
    assert run is not None
    return run


def test_images_come_from_the_whole_input_and_always_the_same(job: LabelJob, tried: SampleRun) -> None:
    assert [head.name for head in tried.heads] == [job.shards[i].name for i in (0, 2, 3)]
    # 4 of shard 0, 3 of shards 2 and 3: the middles of their stretches of 7 rows.
    keys = [int(key) for key in tried.encoded.column("key").to_pylist()]
    assert keys == [0, 2, 4, 6, 14 + 1, 14 + 3, 14 + 5, 21 + 1, 21 + 3, 21 + 5]
    assert tried.encoded.column("index").to_pylist() == [*range(10)]


def test_the_rows_are_those_of_the_run(inputs: str, tried: SampleRun, tmp_path: Path) -> None:
    run_inline(make_job([inputs], tmp_path / "out"))
    images = pd.read_parquet(tmp_path / "out" / "images").fillna({"error_code": ""}).set_index("key")
    instances = pd.read_parquet(tmp_path / "out" / "instances")
    for row in tried.encoded.to_pylist():
        image = images.loc[row["key"]]
        assert (row["error_code"] or "", row["sha256"]) == (image.error_code, image.sha256)
        of_run = instances[instances.image_uid == image.image_uid]
        said = [(r["category_id"], r["segmentation"]["counts"], r["score"]) for r in row["regions"] or []]
        masks = [each["counts"] for each in of_run.segmentation]
        assert said == list(zip(of_run.category_id, masks, of_run.score, strict=True))


def test_a_failed_image_is_counted(tried: SampleRun) -> None:
    # Every ninth image of the input is cut in half: 8, 17 and 26; the sample holds the last two.
    assert tried.failures == {"E_TRUNCATED": 2}
    assert statuses(tried) == {"labelled": 8, "failed": 2}


def test_every_stage_is_timed_by_batch(tried: SampleRun) -> None:
    assert {name: [lap.images for lap in laps] for name, laps in tried.laps.items()} == {
        "annotate": [4, 4, 2],
        "encode": [4, 4, 2],
        "write": [4, 4, 2],
    }
    assert len(tried.model_seconds) == 3
    assert sum(lap.images for lap in tried.decode) == 10
    assert all(lap.seconds > 0 for laps in (*tried.laps.values(), tried.decode) for lap in laps)
    assert tried.load_seconds > 0
    assert tried.seal_seconds > 0
    assert tried.decode_cpu_seconds >= 0
    assert tried.sealed.images.num_rows == 10


def test_nothing_is_written_but_the_sample(job: LabelJob, tried: SampleRun) -> None:
    shards = {path.name for path in (Path(job.output) / "_parts").iterdir()}
    assert shards == {"sample", "warm-up"}
    assert [path.name for path in Path(job.output).iterdir()] == ["_parts"]


def test_the_head_of_a_shard_is_at_least_a_table(job: LabelJob) -> None:
    reader = ReaderConfig(rows_per_table=2)
    head = read_head(job.shards[1], reader, job.storage, max_bytes=1)
    assert head.rows.num_rows == 2
    assert head.closing is None
    whole = read_head(job.shards[1], reader, job.storage, max_bytes=2**30)
    assert whole.rows.num_rows == 7
    assert whole.closing is not None
    assert whole.closing.num_rows == 7


def test_images_are_estimated_from_the_bytes_of_beginnings(job: LabelJob) -> None:
    reader = ReaderConfig(rows_per_table=3)
    heads = [read_head(shard, reader, job.storage, max_bytes=1) for shard in job.shards[:2]]
    assert sum(head.rows.num_rows for head in heads) == 6
    # 28 images; the archives' last blocks of zeros (10 KiB) count as images of some 4 KiB here.
    assert 28 <= estimated_images(heads, job.shards) < 28 + 4 * 10_240 / 2000


@pytest.mark.parametrize("reader", [ReaderConfig(rows_per_table=3), ReaderConfig(bytes_per_table=2500)])
def test_blocks_are_cut_as_a_reader_cuts_them(job: LabelJob, reader: ReaderConfig) -> None:
    shard = job.shards[0]
    tables = list(read_shard(shard, reader, job.storage))
    rows = pa.concat_tables(tables).slice(0, 7)
    own = [table.num_rows for table in blocks(rows, shard.id, reader)]
    assert own[:-1] == [table.num_rows for table in tables][: len(own) - 1]
    assert sum(own) == 8
    assert len(own) > 1


def test_damage_and_shards_that_are_gone_are_faults(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, num_shards=3, images_per_shard=2)
    paths[0].write_bytes(paths[0].read_bytes()[:-8000])
    shards = expand_inputs([str(tmp_path / "*.tar")], StorageOptions())
    paths[2].unlink()
    run = run_sample(make_job([str(tmp_path / "*.tar")], tmp_path / "run"), shards, SampleConfig())
    assert run is not None
    assert {name: says.split(":")[0] for name, says in run.faults.items()} == {
        shards[0].name: "E_TRUNCATED_ARCHIVE",
        shards[2].name: "E_STORAGE",
    }
    assert len(run.heads) == 2


def test_an_input_without_images_gives_no_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "empty.tar", [])
    job = make_job([str(tmp_path / "*.tar")], tmp_path / "run")
    assert run_sample(job, job.shards, SampleConfig()) is None


def test_a_sample_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"sample\.images is 0"):
        SampleConfig(images=0)


class Part:
    def __init__(self) -> None:
        self.calls = 0

    def segment(self, images: list[int]) -> int:
        self.calls += 1
        return sum(images)


class Finder(Part):
    def __init__(self, segmenter: Part) -> None:
        super().__init__()
        self.segmenter = segmenter

    def find(self, images: list[int], class_maps: list[None]) -> int:
        return self.segmenter.segment(images)


class Whole:
    def __init__(self) -> None:
        self.segmenter = Part()
        self.finder = Finder(self.segmenter)
        self.expert = None


class Factory:
    def build(self) -> Whole:
        return Whole()


def test_parts_are_timed_once_and_answer_as_before() -> None:
    clock = PartClock()
    whole = TimedFactory(Factory(), clock).build()  # type: ignore[arg-type]
    assert whole.finder.find([1, 2], [None]) == 3  # type: ignore[attr-defined]
    assert set(clock.seconds) == {"detector"}  # what it asks the segmenter for is its own time
    assert whole.segmenter.segment([5]) == 5  # type: ignore[attr-defined]
    assert set(clock.seconds) == {"detector", "segmenter"}


def test_the_parts_of_the_jobs_annotator_are_timed(tried: SampleRun) -> None:
    assert set(tried.part_seconds) == {"segmenter"}
