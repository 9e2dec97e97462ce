"""Where the images of labelled shards are: names of their files, and their bytes as they came.

Nothing here raises for a shard that is gone or was changed: what is missing is told image by image. Bytes are
checked against the SHA-256 that was labelled, so a shard that was only touched or moved is as good as before.
"""

import hashlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from ovsops.errors import StorageError
from pipelines.keys import IMAGE_EXTENSIONS, archive_key, extension_of, folder_key, name_fault
from pipelines.ledger import Commit
from pipelines.readers import ReaderConfig, read_shard
from pipelines.redact import redact
from pipelines.rows import Closing
from pipelines.shards import TAR_SUFFIXES, Shard
from pipelines.storage import Storage, StorageOptions, open_storage, split_url
from pipelines.tar import TarReader

logger = logging.getLogger(__name__)

Missing = Literal["images_gone", "images_changed"]
"""Why an image has no bytes; a code of `report.MEANING`."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """How the inputs of the run are read."""

    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """As the run read them: places in a shard are counted by it."""
    options: StorageOptions = field(default_factory=StorageOptions)
    moved: Mapping[str, str] = field(default_factory=dict)
    """URLs of shards that are elsewhere now, by name."""


class ShardImages(Protocol):
    """The images of one shard."""

    is_whole: bool
    """The shard was there and could be read to its end."""

    def get(self, row: Mapping[str, Any]) -> bytes | Missing:
        """The bytes of a row of `images`, or why there are none."""


class Sources:
    """The inputs of a run, found again shard by shard. Each folder of images is listed once."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self._listings: dict[str, dict[str, str]] = {}

    def url_of(self, commit: Commit) -> str:
        """Where the shard is now."""
        return self.inputs.moved.get(commit.name, commit.url)

    @contextmanager
    def images(self, commit: Commit, folder: Path) -> Iterator[ShardImages]:
        """The shard's images, in any order. An archive is passed over once, into a nameless file in `folder`."""
        if not is_archive(self.url_of(commit)):
            yield self._folder_images(commit)
            return
        with tempfile.TemporaryFile(dir=folder) as file:
            images = _ArchiveImages(file)
            images.is_whole = self._spool(images, commit)
            yield images

    def file_names(self, commit: Commit) -> dict[str, str] | None:
        """Name of each image's file by key, below the shard; None where they cannot be had. Reads headers alone."""
        url = self.url_of(commit)
        try:
            if not is_archive(url):
                return self._listing(url) or None
            names: dict[str, str] = {}
            for key, name in self._members(url):
                names.setdefault(key, name)
            return names
        except (OSError, StorageError) as error:
            _tell(commit, url, error)
            return None

    def _spool(self, images: "_ArchiveImages", commit: Commit) -> bool:
        url = self.url_of(commit)
        folder, name = split_url(url)
        try:
            info = open_storage(folder, self.inputs.options).info(name)
        except (OSError, StorageError) as error:
            _tell(commit, url, error)
            return False
        slug = commit.shard.rpartition("-")[0]
        shard = Shard(name=commit.name, slug=slug, url=url, size=info.size, tag=info.tag, kind="tar")
        closing = ""
        for table in read_shard(shard, self.inputs.reader, self.inputs.options):
            for row in table.select(["index", "image", "closing"]).to_pylist():
                closing = row["closing"] or closing
                if row["image"] is not None:
                    images.put(row["index"], row["image"])
        end = Closing.from_json(closing)
        if end.failed_code:
            logger.warning("shard %s: %s: %s", commit.name, end.failed_code, end.failed)
        return not end.failed_code

    def _folder_images(self, commit: Commit) -> "_FolderImages":
        url = self.url_of(commit)
        try:
            listing = self._listing(url)
        except (OSError, StorageError) as error:
            _tell(commit, url, error)
            listing = {}
        return _FolderImages(open_storage(url, self.inputs.options), listing)

    def _listing(self, url: str) -> dict[str, str]:
        if url not in self._listings:
            infos = open_storage(url, self.inputs.options).list()
            paths = (info.path for info in infos if not info.is_link)
            found: dict[str, str] = {}
            for path in paths:
                if extension_of(path) in IMAGE_EXTENSIONS:
                    found.setdefault(folder_key(path), path)
            self._listings[url] = found
        return self._listings[url]

    def _members(self, url: str) -> Iterator[tuple[str, str]]:
        folder, name = split_url(url)
        ignored = self.inputs.reader.samples.ignored_fields
        with open_storage(folder, self.inputs.options).open(name) as stream:
            for member in TarReader(stream, self.inputs.reader.tar, lambda name, size: False, seeks=True):
                if name_fault(member.name):
                    continue
                text = member.name.decode()
                parts = archive_key(text)
                if parts and parts[1].lower() not in ignored and extension_of(text) in IMAGE_EXTENSIONS:
                    yield parts[0], text


class _ArchiveImages:
    """Images of an archive by their place in it, kept in a file."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._places: dict[int, tuple[int, int]] = {}
        self.is_whole = True

    def put(self, index: int, data: bytes) -> None:
        """Keep the image at this place of the shard."""
        self._places[index] = (self._file.tell(), len(data))
        self._file.write(data)

    def get(self, row: Mapping[str, Any]) -> bytes | Missing:
        place = self._places.get(row["index"])
        if place is None:
            return "images_gone"
        self._file.seek(place[0])
        return _checked(self._file.read(place[1]), row)


class _FolderImages:
    """Images of a folder by their path in it."""

    def __init__(self, storage: Storage, listing: Mapping[str, str]) -> None:
        self._storage, self._listing = storage, listing
        self.is_whole = bool(listing)

    def get(self, row: Mapping[str, Any]) -> bytes | Missing:
        path = self._listing.get(row["key"])
        if path is None:
            return "images_gone"
        try:
            return _checked(self._storage.read(path), row)
        except (OSError, StorageError) as error:
            logger.warning("%s: %s", path, redact(str(error)))
            return "images_gone"


def is_archive(url: str) -> bool:
    """Whether a shard is an archive; else it is a folder of images."""
    return url.endswith(TAR_SUFFIXES)


def _checked(data: bytes, row: Mapping[str, Any]) -> bytes | Missing:
    return data if hashlib.sha256(data).hexdigest() == row["sha256"] else "images_changed"


def _tell(commit: Commit, url: str, error: Exception) -> None:
    logger.warning("shard %s cannot be read at %s: %s", commit.name, redact(url), redact(str(error)))
