"""The bytes of an archive in order: counted, hashed, and unpacked when they are gzip."""

import hashlib
import io
import zlib
from typing import BinaryIO

_CHUNK = 2**18
_GZIP = b"\x1f\x8b"
_OTHER_COMPRESSIONS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x04\x22\x4d\x18": "lz4",
}
_RATIO_ALLOWANCE = 64 * 2**20
"""Unpacked bytes that are allowed whatever the ratio."""


class DamagedStreamError(Exception):
    """The archive cannot be read further. Not an error of the place it is stored in."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class TarStream:
    """Reads a plain or gzip file forwards, in bounded memory; told apart by their first bytes, never by the
    name.
    """

    def __init__(self, stream: BinaryIO, *, max_ratio: float, seeks: bool = False) -> None:
        self._raw, self._max_ratio = stream, max_ratio
        self._seeks = seeks and stream.seekable()
        self._hash = hashlib.sha256()
        self.num_bytes = 0
        """Bytes read of the file, packed."""
        self.position = 0
        """Bytes handed out, unpacked."""
        self._num_unpacked = 0
        self._head: bytes | None = None
        self._gzip: _Gunzip | None = None

    @property
    def sha256(self) -> str:
        """Of the file's bytes so far; after `drain`, of the file."""
        return self._hash.hexdigest()

    def read(self, size: int) -> bytes:
        """`size` bytes, fewer only at the end."""
        self._start()
        pieces: list[bytes] = []
        missing = size
        while missing and (piece := self._piece(min(missing, 2**20))):
            pieces.append(piece)
            missing -= len(piece)
        data = b"".join(pieces)
        self.position += len(data)
        return data

    def skip(self, size: int) -> int:
        """Read past up to `size` bytes; how many there were. Where it seeks, the end of the file is not seen here."""
        missing = size
        if self._seeks and self._head is not None and self._gzip is None and missing > len(self._head):
            missing -= len(self._head)
            self._head = b""
            self._raw.seek(missing, io.SEEK_CUR)
            self.position += size
            return size
        while missing and (piece := self.read(min(missing, 2**20))):
            missing -= len(piece)
        return size - missing

    def drain(self) -> None:
        """Read the file to its end without unpacking, so that `sha256` and `num_bytes` are those of the
        whole.
        """
        while self._packed(_CHUNK):
            pass

    def check_complete(self) -> None:
        """After the last byte: a gzip file must have its own end, too."""
        if self._gzip is not None and not self._gzip.is_complete:
            raise DamagedStreamError(
                "E_TRUNCATED_ARCHIVE", f"the gzip data is cut at byte {self.num_bytes:,}"
            )

    def _start(self) -> None:
        if self._head is not None:
            return
        self._head = self._packed(6)
        if self._head.startswith(_GZIP):
            self._gzip = _Gunzip()
        for magic, name in _OTHER_COMPRESSIONS.items():
            if self._head.startswith(magic):
                raise DamagedStreamError(
                    "E_COMPRESSION", f"the archive is {name}: pack it again as plain tar or gzip"
                )

    def _piece(self, size: int) -> bytes:
        if self._gzip is None:
            if self._head:
                piece, self._head = self._head[:size], self._head[size:]
                return piece
            return self._packed(size)
        while True:
            piece = self._gzip.unpack(size)
            if piece:
                self._num_unpacked += len(piece)
                if self._num_unpacked > _RATIO_ALLOWANCE + self._max_ratio * self.num_bytes:
                    raise DamagedStreamError(
                        "E_DECOMPRESSION_RATIO",
                        f"{self.num_bytes:,} packed bytes unpack to over {self._num_unpacked:,}",
                    )
                return piece
            packed = self._head or self._packed(_CHUNK)
            self._head = b""
            if not packed:
                return b""
            self._gzip.feed(packed)

    def _packed(self, size: int) -> bytes:
        data = self._raw.read(size)
        self._hash.update(data)
        self.num_bytes += len(data)
        return data


class _Gunzip:
    """Gzip members one after the other (RFC 1952, 2.2), then at most zeros."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self._waiting = b""
        self._in_member = True

    @property
    def is_complete(self) -> bool:
        """The last member has come to its end."""
        return not self._in_member

    def feed(self, packed: bytes) -> None:
        """More of the file."""
        self._waiting += packed

    def unpack(self, size: int) -> bytes:
        """Up to `size` bytes; b"" asks for more input."""
        while self._in_member or self._next_member():
            try:
                piece = self._member.decompress(self._waiting, size)
            except zlib.error as error:
                raise DamagedStreamError("E_GZIP", f"the gzip data is damaged: {error}") from None
            self._waiting = self._member.unconsumed_tail
            if self._member.eof:
                self._waiting, self._in_member = self._member.unused_data, False
            if piece or (self._in_member and not self._waiting):
                return piece
        return b""

    def _next_member(self) -> bool:
        """Whether another gzip member follows in what is waiting."""
        self._waiting = self._waiting.lstrip(b"\0")
        if not self._waiting:
            return False
        if self._waiting[:1] != _GZIP[:1]:
            raise DamagedStreamError("E_TRAILING_DATA", "bytes other than gzip follow the gzip data")
        self._member, self._in_member = zlib.decompressobj(wbits=31), True
        return True
