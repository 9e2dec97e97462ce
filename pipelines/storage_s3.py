"""Storage below `s3://bucket/prefix`, through s3fs's session.

Every request has time-outs, and one retry loop (ours: those of the layers below are switched off, so that
they do not multiply). A body that is cut off goes on where it stopped, tied to the ETag that the first
answer gave. Create uses `If-None-Match: *`.
"""

import asyncio
import functools
import io
import logging
import os
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, TypeVar

from ovsops.errors import ConfigError, StorageError
from pipelines.redact import redact
from pipelines.storage import ObjectChangedError, ObjectInfo, ObjectReader, Storage, StorageOptions

logger = logging.getLogger(__name__)

FIRST_WAIT_S = 0.2
LONGEST_WAIT_S = 10.0

_CHUNK_BYTES = 2**18
_RETRYABLE_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_RETRYABLE_CODES = frozenset({"SlowDown", "Throttling", "RequestTimeout", "ConditionalRequestConflict"})
_EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)$")

_Answer = TypeVar("_Answer")


class _Refused(Exception):  # noqa: N818  a signal between two functions of this file
    """The server's answer to a request that asking again will not change."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True, kw_only=True)
class _Range:
    """Bytes of one object, with what the server says about the whole."""

    data: bytes
    size: int
    etag: str


class S3Storage(Storage):
    """Objects of `bucket` whose keys start with `prefix/`."""

    def __init__(self, bucket: str, prefix: str, options: StorageOptions) -> None:
        self.bucket, self.prefix, self.options = bucket, prefix, options
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")

    def list(self, prefix: str = "", *, recursive: bool = True, name_prefix: str = "") -> list[ObjectInfo]:
        """See `Storage.list`."""
        start = f"{self.prefix}/" if self.prefix else ""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        request = {"Bucket": self.bucket, "Prefix": start + folder + name_prefix, "MaxKeys": 1000}
        if not recursive:
            request["Delimiter"] = "/"
        found: list[ObjectInfo] = []
        while True:
            page = self._call("list", prefix, "list_objects_v2", request)
            found += [
                ObjectInfo(path=entry["Key"][len(start) :], size=entry["Size"], tag=entry["ETag"])
                for entry in page.get("Contents", ())
                if not entry["Key"].endswith("/")
            ]
            if not page.get("IsTruncated"):
                return sorted(found, key=attrgetter("path"))
            request = request | {"ContinuationToken": page["NextContinuationToken"]}

    def open(self, path: str) -> ObjectReader:
        """See `Storage.open`. The first block is read here, so that a small object costs one request."""
        block = self._get(path, start=0, etag=None)
        info = ObjectInfo(path=path, size=block.size, tag=block.etag)
        return ObjectReader(_RangeReader(self, info, block.data), info)

    def put(self, path: str, data: bytes) -> None:
        """See `Storage.put`."""
        self._call("write", path, "put_object", self._object(path) | {"Body": data})

    def create(self, path: str, data: bytes) -> bool:
        """See `Storage.create`."""

        async def send(client: Any) -> None:
            await client.put_object(**self._object(path), Body=data, IfNoneMatch="*")

        try:
            self._request("create", path, send)
        except _Refused as refused:
            if refused.status != 412:
                raise self._error("create", path, refused) from None
            # An earlier attempt (aiohttp repeats a PUT by itself) may be stored although its answer was lost.
            return self.read(path) == data
        return True

    def move(self, src: str, dst: str) -> None:
        """See `Storage.move`."""
        self._call("copy", src, "copy_object", self._object(dst) | {"CopySource": self._object(src)})
        self.delete(src)

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        self._call("delete", path, "delete_object", self._object(path))

    def info(self, path: str) -> ObjectInfo:
        """See `Storage.info`."""
        head = self._call("look up", path, "head_object", self._object(path))
        return ObjectInfo(path=path, size=head["ContentLength"], tag=head["ETag"])

    def _object(self, path: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": f"{self.prefix}/{path}" if self.prefix else path}

    def _get(self, path: str, *, start: int, etag: str | None) -> _Range:
        """Up to one block from `start` on; a cut body is continued, not read again."""
        data = bytearray()
        size = -1

        async def fetch(client: Any) -> None:
            nonlocal etag, size
            at = start + len(data)
            request = self._object(path) | {"Range": f"bytes={at}-{start + self.options.block_bytes - 1}"}
            answer = await client.get_object(**request, **({"IfMatch": etag} if etag else {}))
            async with answer["Body"] as body:
                if etag is not None and answer["ETag"] != etag:
                    raise _changed(self.url, path)
                etag, size = answer["ETag"], _whole_size(answer, at)
                end = min(size, start + self.options.block_bytes)
                while start + len(data) < end:
                    chunk = await body.read(min(_CHUNK_BYTES, end - start - len(data)))
                    if not chunk:
                        raise ConnectionError(f"the body ended at byte {start + len(data)} of {end}")
                    data.extend(chunk)

        try:
            self._request("read", path, fetch)
        except _Refused as refused:
            if refused.status == 412:
                raise _changed(self.url, path) from None
            if refused.status == 416 and start == 0:  # an empty object has no first byte
                info = self.info(path)
                if info.size == 0:
                    return _Range(data=b"", size=0, etag=info.tag)
            raise self._error("read", path, refused) from None
        assert etag is not None
        return _Range(data=bytes(data), size=size, etag=etag)

    def _call(self, verb: str, path: str, method: str, request: dict[str, Any]) -> Any:
        try:
            return self._request(verb, path, lambda client: getattr(client, method)(**request))
        except _Refused as refused:
            raise self._error(verb, path, refused) from None

    def _request(self, verb: str, path: str, send: Callable[[Any], Awaitable[_Answer]]) -> _Answer:
        """`send` with time-outs and bounded retries; `_Refused` when the server says no, `StorageError`
        when it does not answer.
        """
        session = _session(self.options, os.getpid())
        reason = ""
        for attempt in range(self.options.max_attempts):
            if attempt:
                longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (attempt - 1))
                time.sleep(longest * random.uniform(0.5, 1.0))  # spreads workers; nothing depends on it
            try:
                return session.run(send, self.options.request_timeout_s)
            except _Refused as refused:
                expired = refused.code in _EXPIRED_CODES and attempt == 0
                if expired:
                    session.renew()
                elif refused.status not in _RETRYABLE_STATUS and refused.code not in _RETRYABLE_CODES:
                    raise
                reason = f"{refused.status} {refused.code}"
            except _no_answer_errors() as error:
                reason = redact(f"{type(error).__name__}: {error}") if str(error) else type(error).__name__
            logger.debug("%s %s/%s, attempt %d: %s", verb, self.url, path, attempt + 1, reason)
        raise StorageError(
            f"cannot {verb} {redact(f'{self.url}/{path}')}: {reason} after {self.options.max_attempts} "
            "attempts; check the server and the network, then run again"
        )

    def _error(self, verb: str, path: str, refused: _Refused) -> Exception:
        what = f"cannot {verb} {redact(f'{self.url}/{path}')}"
        if refused.code == "NoSuchBucket":
            return StorageError(
                f"{what}: no bucket is called {self.bucket!r}; check the name and the endpoint"
            )
        if refused.status == 404:
            return FileNotFoundError(f"{what}: it does not exist")
        way_out = (
            "the credentials in the environment and their rights" if refused.status == 403 else "the URL"
        )
        answer = redact(f"{refused.status} {refused.code} {refused}")
        return StorageError(f"{what}: the server answered {answer}; check {way_out}")


class _RangeReader(io.RawIOBase):
    """One object read block by block, always of the version that was opened."""

    def __init__(self, storage: S3Storage, info: ObjectInfo, first_block: bytes) -> None:
        super().__init__()
        self._storage, self._info = storage, info
        self._block, self._block_start, self._at = first_block, 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._info.size}[whence]
        if base + offset < 0:
            raise ValueError(f"seek to {base + offset}: before the start of {self._info.path}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at >= self._info.size:
            return 0
        offset = self._at - self._block_start
        if not 0 <= offset < len(self._block):
            self._block = b""  # one block at a time
            self._block = self._storage._get(self._info.path, start=self._at, etag=self._info.tag).data
            self._block_start, offset = self._at, 0
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._block) - offset)
        view[:count] = self._block[offset : offset + count]
        self._at += count
        return count


class _Session:
    """The client of one process, on s3fs's event loop."""

    def __init__(self, options: StorageOptions) -> None:
        try:
            from s3fs import S3FileSystem
        except ImportError as error:
            raise ConfigError("s3:// needs the extra: pip install 'ovsops[s3]'") from error
        needs_region = options.s3_endpoint is not None and not _region_of_environment()
        region = options.s3_region or ("us-east-1" if needs_region else None)
        self._files = S3FileSystem(
            anon=options.anonymous,
            endpoint_url=options.s3_endpoint,
            client_kwargs={"region_name": region} if region else {},
            config_kwargs={
                "connect_timeout": options.connect_timeout_s,
                "read_timeout": options.read_timeout_s,
                "retries": {"total_max_attempts": 1, "mode": "standard"},
                # Servers on premises do not know the newer default checksums.
                "request_checksum_calculation": "when_required",
                "response_checksum_validation": "when_required",
            },
            skip_instance_cache=True,
        )

    def run(self, send: Callable[[Any], Awaitable[_Answer]], timeout_s: float) -> _Answer:
        """One attempt, on the event loop's thread."""
        from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError
        from fsspec.asyn import sync

        async def attempt() -> _Answer:
            client = await self._files.set_session()
            return await asyncio.wait_for(send(client), timeout_s)

        try:
            answer: _Answer = sync(self._files.loop, attempt)
        except ClientError as error:
            status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
            details = error.response.get("Error", {})
            raise _Refused(status, str(details.get("Code", "")), str(details.get("Message", ""))) from None
        except (NoCredentialsError, PartialCredentialsError):
            raise _Refused(403, "NoCredentials", "no credentials were found") from None
        return answer

    def renew(self) -> None:
        """Read the credentials again."""
        self._files.connect(refresh=True)


@functools.lru_cache(maxsize=16)
def _session(options: StorageOptions, process_id: int) -> _Session:
    """One client a process and options; `process_id` keeps a forked child from using its parent's sockets."""
    return _Session(options)


@functools.cache
def _no_answer_errors() -> tuple[type[BaseException], ...]:
    from aiohttp import ClientError
    from botocore.exceptions import ConnectionError as UnreachableError
    from botocore.exceptions import HTTPClientError, IncompleteReadError
    from botocore.parsers import ResponseParserError

    return (
        UnreachableError,
        HTTPClientError,
        IncompleteReadError,
        ResponseParserError,
        ClientError,
        TimeoutError,
        ConnectionError,
    )


def _region_of_environment() -> bool:
    return bool(os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"))


def _whole_size(answer: dict[str, Any], start: int) -> int:
    match = _CONTENT_RANGE.match(answer.get("ContentRange", ""))
    if match is not None and int(match[1]) == start:
        return int(match[3])
    if start == 0 and match is None:
        return int(answer["ContentLength"])
    raise ConnectionError(f"the server answered another range than bytes={start}-")


def _changed(url: str, path: str) -> ObjectChangedError:
    return ObjectChangedError(f"{redact(f'{url}/{path}')} was replaced while it was being read")
