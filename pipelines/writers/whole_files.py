"""Files that are whole or not there, and sets of files that are closed when they are large enough.

A `SetWriter` takes samples one by one and holds one open file: memory does not grow with the set. Bytes depend
on the samples and their order alone: no clocks, no host names, no process ids.
"""

import hashlib
import io
import json
import os
import uuid
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self, cast

from ovsops.errors import ConfigError, StorageError
from pipelines.keys import name_fault
from pipelines.training_sets.record import Split, TrainingSample

INDEX = "index.json"
INDEX_VERSION = 1
DEFAULT_FILE_BYTES = 512 * 2**20


@dataclass(frozen=True, kw_only=True)
class WrittenFile:
    """One file of a set."""

    path: str
    """Relative to the set's folder, with `/`."""
    split: Split
    num_images: int
    num_regions: int
    num_bytes: int
    sha256: str


class WholeFile(io.RawIOBase):
    """A binary file, hashed as it is written, under a temporary name until `publish`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path, self.num_bytes, self._hash = path, 0, hashlib.sha256()
        self._temporary = path.with_name(f".ovsops-tmp-{uuid.uuid4().hex}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._temporary.open("xb")
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be written ({error.strerror}); choose another folder"
            ) from error

    def write(self, data: Any) -> int:
        """Append."""
        view = memoryview(data)
        try:
            self._file.write(view)
        except OSError as error:
            raise StorageError(f"{self.path}: {error.strerror}; make room and run again") from error
        self._hash.update(view)
        self.num_bytes += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written."""
        return self.num_bytes

    def writable(self) -> bool:
        """Always."""
        return True

    def publish(self) -> str:
        """Give the file its name, safely on disk; its SHA-256."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self.path)
        return self._hash.hexdigest()

    def discard(self) -> None:
        """Leave nothing, unless it was published."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class OpenFile(Protocol):
    """One file of a format, while samples are added."""

    def add(self, sample: TrainingSample) -> None:
        """Append a sample."""

    def close(self) -> None:
        """Write what the format has at its end. The stream stays open."""


class SetWriter:
    """Files `NAME-00000.EXT`, `-00001`, ... of one split. Use it as a context manager; what was not finished
    is removed.

    The next file begins once one has `max_file_bytes`: it may exceed them by one sample (by one row group, of Parquet).
    """

    def __init__(
        self,
        folder: Path,
        pattern: str,
        open_file: Callable[[BinaryIO], OpenFile],
        *,
        split: Split,
        max_file_bytes: int = DEFAULT_FILE_BYTES,
    ) -> None:
        """`pattern` is a path below `folder`; its last `*` is the file's number."""
        if max_file_bytes < 1:
            raise ConfigError(f"max_file_bytes is {max_file_bytes}: give 1 or more")
        self.folder, self.pattern, self.split = folder, pattern, split
        self.max_file_bytes, self._open_file = max_file_bytes, open_file
        self._written: list[WrittenFile] = []
        self._stream: WholeFile | None = None

    def __enter__(self) -> Self:
        return self

    def add(self, sample: TrainingSample) -> None:
        """Append a sample, which must be of this writer's split."""
        if sample.split != self.split:
            raise ConfigError(
                f"image {sample.image_uid} is of split {sample.split}, this writer's is {self.split}"
            )
        if self._stream is None:
            self._stream = WholeFile(self.folder / numbered(self.pattern, len(self._written)))
            self._file = self._open_file(cast(BinaryIO, self._stream))
            self._num_images = self._num_regions = 0
        self._file.add(sample)
        self._num_images += 1
        self._num_regions += len(sample.regions)
        if self._stream.num_bytes >= self.max_file_bytes:
            self._publish()

    def finish(self) -> list[WrittenFile]:
        """Close the last file; all files. A writer without samples wrote none."""
        self._publish()
        return self._written

    def _publish(self) -> None:
        if self._stream is None:
            return
        self._file.close()
        sha256 = self._stream.publish()
        self._written.append(
            WrittenFile(
                path=self._stream.path.relative_to(self.folder).as_posix(),
                split=self.split,
                num_images=self._num_images,
                num_regions=self._num_regions,
                num_bytes=self._stream.num_bytes,
                sha256=sha256,
            )
        )
        self._stream = None

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.discard()


def file_pattern(template: str, split: Split, stem: str | None) -> str:
    """`template` with `SPLIT`, and with `STEM`: a name that tells the files of one shard from those of others."""
    stem = split if stem is None else stem
    if "/" in stem or stem.startswith(".") or name_fault(stem.encode("utf-8", "surrogatepass")):
        raise ConfigError(f"stem {stem!r} is no file name: give letters, digits, - and _")
    return template.replace("SPLIT", split).replace("STEM", stem)


def numbered(pattern: str, number: int) -> str:
    """The path of file `number`."""
    head, _, tail = pattern.rpartition("*")
    return f"{head}{number:05d}{tail}"


class ImageFolder:
    """Images below `folder/images`, named by content, with the bytes they came with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, sample: TrainingSample) -> str:
        """Write the image unless it is there; its path below the set's folder."""
        path = image_path(sample)
        target = self.folder / path
        if not target.is_file() or target.stat().st_size != len(sample.data):
            write_whole(target, sample.data)
        return path


def image_path(sample: TrainingSample) -> str:
    """Where an image lies in a set that keeps images as files."""
    return f"images/{sample.file_name}"


def write_whole(path: Path, data: bytes) -> str:
    """Write a file beside its name and rename it; its SHA-256."""
    stream = WholeFile(path)
    try:
        stream.write(data)
        return stream.publish()
    finally:
        stream.discard()


def write_index(folder: Path, format_name: str, files: Iterable[WrittenFile], facts: dict[str, Any]) -> Path:
    """`index.json`: which files are of the set, with counts and hashes, sorted by path; `facts` are added as
    they are.
    """
    document = {
        "format": format_name,
        "index_version": INDEX_VERSION,
        "files": [asdict(file) for file in sorted(files, key=lambda file: file.path)],
        **facts,
    }
    write_whole(folder / INDEX, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
    return folder / INDEX
