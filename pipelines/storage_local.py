"""Storage in a local (or mounted) folder: every write is temp file, fsync, rename, fsync of the folder."""

import io
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import BinaryIO

from ovsops.errors import StorageError
from pipelines.storage import ObjectInfo, ObjectReader, Storage

TEMPORARY = ".ovsops-tmp-"
"""Names of unfinished writes start with this; listings leave them out."""
_CREATE_ATTEMPTS = 5
"""Folders are made again this often where `prune` of another process takes them away."""


class LocalStorage(Storage):
    """Files below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def list(self, prefix: str = "", *, recursive: bool = True, name_prefix: str = "") -> list[ObjectInfo]:
        """See `Storage.list`."""
        folder = self._full(prefix) if prefix else self.root
        start = f"{prefix.rstrip('/')}/" if prefix else ""
        with self._errors("list", prefix or "."):
            found = [
                info
                for info in _walk(str(folder), start, recursive=recursive)
                if info.path.startswith(start + name_prefix)
            ]
        return sorted(found, key=attrgetter("path"))

    def count_linked_folders(self, prefix: str = "") -> int:
        """See `Storage.count_linked_folders`."""
        count = 0
        for folder, folders, files in os.walk(self._full(prefix) if prefix else self.root):
            links = [Path(folder, name) for name in (*folders, *files)]
            count += sum(path.is_symlink() and not path.is_file() for path in links)
        return count

    def open(self, path: str) -> ObjectReader:
        """See `Storage.open`."""
        with self._errors("open", path):
            raw = io.FileIO(self._full(path), "rb")
            found = os.fstat(raw.fileno())
        return ObjectReader(raw, _info(path, found))

    def read(self, path: str) -> bytes:
        """See `Storage.read`."""
        with self._errors("read", path):
            return self._full(path).read_bytes()

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        target = self._full(path)
        with self._errors("write", path), _written(target, data) as temporary:
            os.replace(temporary, target)
            _fsync_folder(target.parent)

    def create(self, path: str, data: bytes) -> bool:
        """See `Storage.create`: a hard link to a finished file, which fails when the name is taken."""
        target = self._full(path)
        with self._errors("create", path), _written(target, data) as temporary:
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
            _fsync_folder(target.parent)
        return True

    def move(self, src: str, dst: str) -> None:
        """See `Storage.move`."""
        source, target = self._full(src), self._full(dst)
        with self._errors("move", src):
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
            _fsync_folder(target.parent)

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        with self._errors("delete", path), suppress(FileNotFoundError):
            self._full(path).unlink()

    def info(self, path: str) -> ObjectInfo:
        """See `Storage.info`. A folder is no file: `FileNotFoundError`."""
        with self._errors("look up", path):
            found = self._full(path).stat()
        if not stat.S_ISREG(found.st_mode):
            raise FileNotFoundError(f"{self.url}/{path} is not a file")
        return _info(path, found)

    def sweep(self, prefix: str = "") -> int:
        """See `Storage.sweep`."""
        count = 0
        with self._errors("sweep", prefix or "."):
            for folder, _, files in os.walk(self._full(prefix) if prefix else self.root):
                for name in files:
                    if name.startswith(TEMPORARY):
                        Path(folder, name).unlink(missing_ok=True)
                        count += 1
        return count

    def prune(self, prefix: str) -> None:
        """See `Storage.prune`. A write that comes at the same time makes its folder again."""
        folder = self._full(prefix)
        for inner, _, _ in os.walk(folder, topdown=False):
            _remove_if_empty(Path(inner))
        for parent in folder.parents:
            if parent == self.root or not _remove_if_empty(parent):
                return

    def _full(self, path: str) -> Path:
        parts = path.split("/")
        if not path or path.startswith("/") or ".." in parts or "\0" in path:
            raise StorageError(f"{path!r} is not a path below {self.url}: give a relative path without '..'")
        return self.root.joinpath(*parts)

    @contextmanager
    def _errors(self, verb: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            reason = error.strerror or str(error)
            raise StorageError(
                f"cannot {verb} {self.url}/{path}: {reason}; check the path, space and rights"
            ) from error


def _info(path: str, found: os.stat_result, *, is_link: bool = False) -> ObjectInfo:
    return ObjectInfo(path=path, size=found.st_size, tag=str(found.st_mtime_ns), is_link=is_link)


def _walk(folder: str, start: str, *, recursive: bool) -> Iterator[ObjectInfo]:
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            path = start + entry.name
            if entry.is_dir(follow_symlinks=False):
                if recursive:
                    yield from _walk(entry.path, f"{path}/", recursive=True)
            elif entry.is_file() and not entry.name.startswith(TEMPORARY):
                with suppress(FileNotFoundError):  # deleted between the listing and here
                    yield _info(path, entry.stat(), is_link=entry.is_symlink())


@contextmanager
def _written(target: Path, data: bytes) -> Iterator[Path]:
    """A temporary file beside `target` with `data` safely on disk; gone afterwards unless it was renamed."""
    temporary = target.parent / f"{TEMPORARY}{uuid.uuid4().hex}"
    try:
        with _created(temporary) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _created(path: Path) -> BinaryIO:
    """A new file in a folder that another process may be removing because it is empty.

    A folder that is there when it is made and gone when it is looked at counts for `mkdir` as a file in the way.
    """
    for _ in range(_CREATE_ATTEMPTS - 1):
        with suppress(FileNotFoundError, FileExistsError):
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("xb")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("xb")


def _remove_if_empty(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:  # it holds something, or is gone: there is nothing to remove
        return False
    return True


def _fsync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return  # another process has deleted the file and pruned its folder meanwhile
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
