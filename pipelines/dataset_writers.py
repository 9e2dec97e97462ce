"""The files of one unit in every format that is asked for, below one folder that is not yet published."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from pipelines.training_sets.record import SPLITS, Split, TrainingSample
from pipelines.writers.coco_set import CocoSetWriter
from pipelines.writers.finehard_json import finehard_json_writer
from pipelines.writers.finehard_parquet import finehard_parquet_writer
from pipelines.writers.hf_folder import hf_writer
from pipelines.writers.webdataset import webdataset_writer
from pipelines.writers.whole_files import ImageFolder, WrittenFile

FormatName = Literal["finehard-json", "finehard-parquet", "webdataset", "coco", "hf"]
FORMATS: tuple[FormatName, ...] = ("finehard-json", "finehard-parquet", "webdataset", "coco", "hf")
WITH_IMAGE_FILES: frozenset[FormatName] = frozenset({"finehard-json", "finehard-parquet", "coco"})
"""Formats whose images are files of their own; the others hold them inside."""
_JSON = {"finehard-json": finehard_json_writer, "webdataset": webdataset_writer}
_PARQUET = {"finehard-parquet": finehard_parquet_writer, "hf": hf_writer}


class _Writer(Protocol):
    """A `SetWriter`, or one of COCO's."""

    def add(self, sample: TrainingSample) -> None:
        """Append a sample."""

    def finish(self) -> list[WrittenFile]:
        """All files."""


class UnitWriters:
    """Writers of all formats and splits of one unit; use it as a context manager.

    Files of a format lie below `work/FORMAT`. Images that are files go to `images_root/FORMAT/images` at once: their
    names are their content, so that writing them again changes nothing. COCO's ids begin at `first_ids` (image,
    annotation), which no other unit of the set reaches. `has_sources` says that negatives say who wrote them.
    """

    def __init__(
        self,
        work: Path,
        images_root: Path,
        formats: Sequence[FormatName],
        *,
        stem: str,
        max_file_bytes: int,
        coco: Mapping[str, Any],
        first_ids: tuple[int, int],
        has_sources: bool = False,
    ) -> None:
        self.work, self.formats, self.stem = work, tuple(formats), stem
        self.max_file_bytes, self.coco = max_file_bytes, coco
        self.folders = [ImageFolder(images_root / name) for name in formats if name in WITH_IMAGE_FILES]
        self._next_ids, self.has_sources = first_ids, has_sources
        self._writers: dict[tuple[FormatName, Split], _Writer] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def add(self, sample: TrainingSample) -> None:
        """Append a sample to the files of its split."""
        for folder in self.folders:
            folder.put(sample)
        for name in self.formats:
            writer = self._writer(name, sample.split)
            if isinstance(writer, CocoSetWriter):
                writer.next_image_id, writer.next_annotation_id = self._next_ids
                writer.add(sample)
                self._next_ids = (writer.next_image_id, writer.next_annotation_id)
            else:
                writer.add(sample)

    def finish(self) -> dict[FormatName, list[WrittenFile]]:
        """Close all files; those of each format, paths relative to `work/FORMAT`."""
        files: dict[FormatName, list[WrittenFile]] = {name: [] for name in self.formats}
        for name in self.formats:
            for split in SPLITS:
                if (writer := self._writers.get((name, split))) is not None:
                    files[name] += writer.finish()
        return files

    def _writer(self, name: FormatName, split: Split) -> _Writer:
        found = self._writers.get((name, split))
        if found is None:
            found = self._writers[name, split] = self._open(name, split)
        return found

    def _open(self, name: FormatName, split: Split) -> _Writer:
        folder = self.work / name
        if name == "coco":
            coco = CocoSetWriter(
                folder, split, stem=self.stem, max_file_bytes=self.max_file_bytes, **self.coco
            )
            return self._stack.enter_context(coco)
        given: dict[str, Any] = {"stem": self.stem, "max_file_bytes": self.max_file_bytes}
        plain = _JSON[name] if name in _JSON else partial(_PARQUET[name], has_sources=self.has_sources)
        return self._stack.enter_context(plain(folder, split, **given))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()
