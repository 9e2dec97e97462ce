"""One small interface over the two places where shards and results live: a local folder, a bucket prefix.

Paths are relative to the storage's root and use `/`. A missing path is `FileNotFoundError`; everything else
that the place answers is `StorageError`, with secrets taken out. Credentials come from the environment or
the machine's role, never from a URL or a recipe.
"""

import io
import os
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ovsops.errors import ConfigError
from pipelines.redact import redact

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+)://")


@dataclass(frozen=True, kw_only=True)
class StorageOptions:
    """How to reach object storage. None of this changes what is read."""

    s3_endpoint: str | None = None
    """URL of an S3-compatible server; None is AWS, or `AWS_ENDPOINT_URL` where it is set."""
    s3_region: str | None = None
    """Region of the bucket; None asks the environment (us-east-1 with an endpoint)."""
    anonymous: bool = False
    """Send unsigned requests: public buckets."""
    connect_timeout_s: float = 10.0
    """Seconds to connect."""
    read_timeout_s: float = 30.0
    """Seconds of silence on an open connection."""
    request_timeout_s: float = 300.0
    """Seconds for one whole request, body included: what stops a body that trickles in."""
    max_attempts: int = 8
    """Attempts of one request, the first included; waits between them double from 0.2 s to at most 10 s."""
    block_bytes: int = 8 * 2**20
    """Bytes that one ranged read asks for. A reader holds one block."""

    def __post_init__(self) -> None:
        for name in ("connect_timeout_s", "read_timeout_s", "request_timeout_s"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"storage.{name} is {getattr(self, name)}: give seconds above 0")
        if self.max_attempts < 1:
            raise ConfigError(f"storage.max_attempts is {self.max_attempts}: give 1 or more")
        if self.block_bytes < 4096:
            raise ConfigError(f"storage.block_bytes is {self.block_bytes}: give 4096 or more")
        if self.s3_endpoint is not None:
            parts = urlsplit(self.s3_endpoint)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ConfigError("storage.s3_endpoint must be http://HOST[:PORT] or https://HOST[:PORT]")
            if parts.username or parts.password:
                raise ConfigError("storage.s3_endpoint holds credentials: put them into the environment")


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored file."""

    path: str
    """Relative to the storage's root."""
    size: int
    """Bytes."""
    tag: str
    """Changes when the content does: the ETag on S3, the modification time in ns on disk."""
    is_link: bool = False
    """A symbolic link to a file (local disk only)."""


class ObjectReader(io.BufferedReader):
    """A stored file opened for reading: a binary stream that knows what it reads."""

    def __init__(self, raw: io.RawIOBase, info: ObjectInfo, buffer_size: int = 2**20) -> None:
        super().__init__(raw, buffer_size)
        self.info = info


class ObjectChangedError(OSError):
    """The object was replaced while it was being read."""


class Storage(ABC):
    """A root folder or bucket prefix. Picklable; connections are made where it is used."""

    url: str
    """The root, without a trailing slash."""

    @abstractmethod
    def list(self, prefix: str = "", *, recursive: bool = True, name_prefix: str = "") -> list[ObjectInfo]:
        """Files below the folder `prefix` ("" is the root), sorted by path, in one pass; none if it does
        not exist.

        `recursive=False` lists one level; `name_prefix` keeps paths that go on with it after the folder.
        Linked folders are not entered, unfinished writes are not listed.
        """

    @abstractmethod
    def open(self, path: str) -> ObjectReader:
        """Stream a file with bounded memory. Reading raises `ObjectChangedError` when the file is replaced
        meanwhile and that can be seen (S3), `StorageError` when it cannot be read.
        """

    @abstractmethod
    def put(self, path: str, data: bytes) -> None:
        """Write a whole file, replacing what is there: readers see the old file or the new one, never a
        piece.
        """

    @abstractmethod
    def create(self, path: str, data: bytes) -> bool:
        """Write a whole file unless one exists: of several writers, one gets True and its bytes stay.

        On S3 this needs a server that honours `If-None-Match: *`. There a writer also gets True when the
        stored bytes equal its own, because the answer to a request that was repeated may be lost: writers
        that must be told apart put something of their own (a run's name) into `data`.
        """

    @abstractmethod
    def move(self, src: str, dst: str) -> None:
        """Rename, replacing `dst`. On S3 a copy, then a delete: a kill in between leaves both."""

    @abstractmethod
    def delete(self, path: str) -> None:
        """Delete a file; a missing one is fine."""

    @abstractmethod
    def info(self, path: str) -> ObjectInfo:
        """Size and tag of a file."""

    def read(self, path: str) -> bytes:
        """All bytes of a file."""
        with self.open(path) as stream:
            return stream.read()

    def exists(self, path: str) -> bool:
        """Whether a file is there."""
        try:
            self.info(path)
        except FileNotFoundError:
            return False
        return True

    def count_linked_folders(self, prefix: str = "") -> int:
        """Symbolic links below `prefix` that lead to folders or nowhere: what `list` does not enter."""
        return 0

    def sweep(self, prefix: str = "") -> int:
        """Delete what writes that were killed left below `prefix`; how many. For whoever holds the output's
        lock.
        """
        return 0

    def prune(self, prefix: str) -> None:  # noqa: B027  nothing to do where there are no folders
        """Remove the folder `prefix`, folders below it and folders above it up to the root, where they hold nothing."""


def scheme_of(url: str) -> str:
    """`file` or `s3`; any other scheme is an error."""
    match = _SCHEME.match(url)
    scheme = match[1].lower() if match else "file"
    if scheme not in ("file", "s3"):
        raise ConfigError(
            f"{redact(url)}: storage {scheme}:// is not known; give a local path or s3://BUCKET/PREFIX"
        )
    return scheme


def local_path(url: str) -> Path:
    """The path that a local URL (`file:///a%20b` or `/a b`) names, absolute."""
    path = unquote(urlsplit(url).path) if url.lower().startswith("file://") else url
    return Path(os.path.abspath(os.path.expanduser(path)))


def split_s3_url(url: str) -> tuple[str, str]:
    """Bucket and key (or prefix, without slashes at its ends) of an `s3://` URL. Keys are taken literally."""
    bucket, _, key = url[len("s3://") :].partition("/")
    if "@" in bucket or ":" in bucket:
        raise ConfigError(
            f"{redact(url)}: the URL holds credentials or a port; use the environment and s3_endpoint"
        )
    if not bucket:
        raise ConfigError(f"{redact(url)}: the bucket is missing; give s3://BUCKET/PREFIX")
    return bucket, key.strip("/")


def open_storage(url: str, options: StorageOptions | None = None) -> Storage:
    """The storage rooted at a local folder or at `s3://bucket/prefix`. Makes no connection and no folder."""
    options = options or StorageOptions()
    if scheme_of(url) == "file":
        from pipelines.storage_local import LocalStorage

        return LocalStorage(local_path(url))
    from pipelines.storage_s3 import S3Storage

    bucket, prefix = split_s3_url(url)
    return S3Storage(bucket, prefix, options)


def split_url(url: str) -> tuple[str, str]:
    """The folder of a file's URL and the file's name in it."""
    if scheme_of(url) == "s3":
        bucket, key = split_s3_url(url)
        folder, _, name = key.rpartition("/")
        return f"s3://{bucket}/{folder}".rstrip("/"), name
    path = local_path(url)
    return str(path.parent), path.name
