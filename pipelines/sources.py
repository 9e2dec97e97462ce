"""Pending shards as a Ray dataset: one read task a shard, Arrow rows with the image bytes still encoded."""

from collections.abc import Iterable, Sequence
from functools import partial

import pyarrow as pa
import ray.data
from ray.data import Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata

from pipelines.readers import ReaderConfig, read_shard
from pipelines.shards import Shard
from pipelines.storage import StorageOptions


class ShardSource(Datasource):
    """Reads shards by our own strict reader."""

    def __init__(self, shards: Sequence[Shard], config: ReaderConfig, options: StorageOptions) -> None:
        super().__init__()
        self.shards, self.config, self.options = shards, config, options

    def estimate_inmemory_data_size(self) -> int | None:
        """Bytes of all shards."""
        return sum(shard.size for shard in self.shards)

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: object = None
    ) -> list[ReadTask]:
        """One task per shard, whatever parallelism is asked for."""
        return [
            ReadTask(
                partial(_read, shard, self.config, self.options),
                BlockMetadata(
                    num_rows=None, size_bytes=shard.size, input_files=(shard.url,), exec_stats=None
                ),
            )
            for shard in self.shards
        ]


def _read(shard: Shard, config: ReaderConfig, options: StorageOptions) -> Iterable[pa.Table]:
    return read_shard(shard, config, options)


def shard_dataset(
    shards: Sequence[Shard], config: ReaderConfig, options: StorageOptions, *, num_cpus: float
) -> Dataset:
    """Dataset of `SOURCE_ROW`. `override_num_blocks` keeps Ray from cutting every shard in two."""
    source = ShardSource(shards, config, options)
    return ray.data.read_datasource(source, override_num_blocks=len(shards), num_cpus=num_cpus)
