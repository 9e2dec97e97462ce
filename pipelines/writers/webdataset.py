"""WebDataset shards: `UID.jpg` with the bytes as they came, `UID.json` with everything else.

The sidecar's fields `license`, `source_url`, `caption_short` and `caption_long` are those that the label job
reads, so that a set can be labelled again. Python's tarfile, `webdataset` and Ray Data read the shards.
"""

import json
import tarfile
from pathlib import Path
from typing import Any, BinaryIO

from pipelines.training_sets.record import Split, TrainingSample
from pipelines.writers.coco import shortest
from pipelines.writers.finehard_parquet import finehard_row
from pipelines.writers.tar_members import add_member
from pipelines.writers.whole_files import DEFAULT_FILE_BYTES, SetWriter, file_pattern

FORMAT = "webdataset"


def webdataset_writer(
    folder: Path, split: Split, *, stem: str | None = None, max_file_bytes: int = DEFAULT_FILE_BYTES
) -> SetWriter:
    """Shards `SPLIT/STEM-00000.tar`, samples in the order in which they come."""
    pattern = file_pattern("SPLIT/STEM-*.tar", split, stem)
    return SetWriter(folder, pattern, _Shard, split=split, max_file_bytes=max_file_bytes)


class _Shard:
    """One archive in the POSIX.1-1988 form, which every reader knows."""

    def __init__(self, stream: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT)

    def add(self, sample: TrainingSample) -> None:
        text = json.dumps(sidecar(sample), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        add_member(self._tar, f"{sample.image_uid}.{sample.extension}", sample.data)
        add_member(self._tar, f"{sample.image_uid}.json", text.encode())

    def close(self) -> None:
        self._tar.close()


def sidecar(sample: TrainingSample) -> dict[str, Any]:
    """The Parquet row of the image (`finehard_parquet.FINEHARD`) without a path, captions named as the label
    job names them.
    """
    row = finehard_row(sample)
    del row["f_path"]
    row["caption_long"], row["caption_short"] = row.pop("caption"), row.pop("short_caption")
    for region in row["regions"]:
        region["score"] = shortest(region["score"])
        region["bbox"] = [shortest(value) for value in region["bbox"]]
        region["neg_scores"] = [shortest(value) for value in region["neg_scores"]]
    return row
