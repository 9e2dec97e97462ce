"""A strict streaming tar parser: ustar, GNU long names, PAX; plain or gzip; nothing is extracted or
unpickled.

Python's tarfile and the readers built on it take a damaged header for the end of the archive and so lose
samples without a word. Here an archive is whole only if every header's checksum holds and two blocks of
zeros, then nothing but zeros, end it. Whatever else happens is named in `TarEnd`, with the byte offset.
Formats: POSIX.1-1988 (ustar), POSIX.1-2001 (pax), and the GNU tar manual's "Basic Tar Format".
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from ovsops.errors import ConfigError
from pipelines.keys import escaped_name
from pipelines.tar_header import BLOCK, EntryKind, Header, HeaderError, Overrides, parse_header, parse_pax
from pipelines.tar_stream import DamagedStreamError, TarStream

_EMPTY = b"\0" * BLOCK


@dataclass(frozen=True, kw_only=True)
class TarConfig:
    """Caps on archives that nobody vouches for."""

    max_member_bytes: int = 64 * 2**20
    """A larger member is read past, not into memory."""
    max_members: int = 10_000_000
    """Headers in one archive; more is damage."""
    max_header_bytes: int = 2**20
    """One PAX or long-name record; more is damage."""
    max_decompression_ratio: float = 200.0
    """Unpacked bytes over packed bytes, beyond the first 64 MiB; more is damage."""

    def __post_init__(self) -> None:
        for name in ("max_member_bytes", "max_members", "max_header_bytes", "max_decompression_ratio"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reader.tar.{name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One regular file, of an archive or of a folder."""

    name: bytes
    offset: int
    """Of its header, in unpacked bytes; 0 in a folder."""
    size: int
    """Bytes that the header claims."""
    data: bytes | None
    """None when it was not wanted, is over the cap, or is cut off."""
    too_large: bool = False
    """Over the cap, so that its bytes were not kept."""
    truncated: bool = False
    """The archive ends inside this member."""


@dataclass(frozen=True, kw_only=True)
class TarEnd:
    """How the archive ended."""

    complete: bool
    damage_code: str = ""
    """`E_EMPTY_ARCHIVE`, `E_TRUNCATED_ARCHIVE`, `E_NO_END`, `E_BAD_HEADER`, `E_ZERO_HEADER`,
    `E_TRAILING_DATA`, `E_GZIP`, `E_COMPRESSION`, `E_DECOMPRESSION_RATIO`, `E_TOO_MANY_MEMBERS`.
    """
    damage: str = ""
    num_members: int = 0
    """Regular files, the one that is cut off included."""
    ignored: Mapping[str, int] = field(default_factory=dict)
    """Entries that are no regular files, by kind."""
    num_bytes: int = 0
    """Bytes of the file, packed, as far as it could be read."""
    sha256: str = ""
    """Of these bytes."""


class TarReader:
    """Iterates over the regular files of one archive; `end` says afterwards how it ended.

    `wants(name, size)` decides whether a member's bytes are kept; other members are read past in bounded
    memory. Damage never raises: it ends the iteration. Errors of the stream itself (`StorageError`) pass
    through. `seeks` jumps over them where the file can, for who wants a few members: `end` then has no hash of
    the file, and a member that is cut off may pass for one that was jumped over.
    """

    def __init__(
        self,
        stream: BinaryIO,
        config: TarConfig | None = None,
        wants: Callable[[bytes, int], bool] = lambda name, size: True,
        *,
        seeks: bool = False,
    ) -> None:
        self._config = config or TarConfig()
        self._stream = TarStream(stream, max_ratio=self._config.max_decompression_ratio, seeks=seeks)
        self._wants = wants
        self._ignored: Counter[str] = Counter()
        self._num_members = 0
        self._first_block = b""
        self.end: TarEnd | None = None
        """None until the iteration is over."""

    def __iter__(self) -> Iterator[Member]:
        code, damage = "", ""
        try:
            yield from self._members()
        except HeaderError as error:
            code, damage = error.code, f"{error}, in the header at byte {self._header_at:,}"
            if self._header_at == 0 and b"ustar" not in self._first_block:
                damage = f"this is no tar archive: it begins with {self._first_block[:16]!r} ({error})"
        except DamagedStreamError as error:
            code, damage = error.code, str(error)
        self._stream.drain()
        self.end = TarEnd(
            complete=not code,
            damage_code=code,
            damage=damage,
            num_members=self._num_members,
            ignored=dict(self._ignored),
            num_bytes=self._stream.num_bytes,
            sha256=self._stream.sha256,
        )

    def _members(self) -> Iterator[Member]:
        overrides = Overrides()
        num_headers = 0
        while (block := self._next_header(expects_entry=overrides.is_set)) is not None:
            num_headers += 1
            if num_headers > self._config.max_members:
                raise DamagedStreamError("E_TOO_MANY_MEMBERS", f"over {self._config.max_members:,} members")
            header = parse_header(block)
            if header.kind is EntryKind.LONG_NAME:
                overrides.update(Overrides(name=self._record(header).rstrip(b"\0")))
            elif header.kind is EntryKind.LONG_LINK:
                self._record(header)
            elif header.kind is EntryKind.PAX:
                overrides.update(parse_pax(self._record(header)))
            elif header.kind is EntryKind.PAX_GLOBAL:
                if parse_pax(self._record(header)) != Overrides():
                    raise HeaderError("a global PAX record sets a path or size for all members")
            else:
                entry = header.with_overrides(overrides)
                overrides = Overrides()
                if entry.kind is EntryKind.FILE:
                    yield from self._file(entry)
                else:
                    self._pass(entry)

    def _next_header(self, *, expects_entry: bool) -> bytes | None:
        """The next header block, or None at a proper end."""
        self._header_at = self._stream.position
        block = self._stream.read(BLOCK)
        if self._header_at == 0:
            self._first_block = block
        if not block:
            self._stream.check_complete()
        if not block and self._header_at == 0:
            raise DamagedStreamError("E_EMPTY_ARCHIVE", "the archive has no bytes")
        if not block:
            raise DamagedStreamError(
                "E_NO_END",
                f"the archive stops at byte {self._header_at:,}, between members, without its end blocks",
            )
        if len(block) < BLOCK:
            raise DamagedStreamError(
                "E_TRUNCATED_ARCHIVE", f"the archive is cut inside the header at byte {self._header_at:,}"
            )
        if block != _EMPTY:
            return block
        if expects_entry:
            raise HeaderError("zeros follow a record that announces a member", "E_ZERO_HEADER")
        self._check_end()
        return None

    def _check_end(self) -> None:
        """One block of zeros was read: a second one and nothing but zeros must follow."""
        second = self._stream.read(BLOCK)
        if len(second) < BLOCK:
            raise DamagedStreamError("E_NO_END", f"one block of zeros, not two, at byte {self._header_at:,}")
        if second != _EMPTY:
            raise HeaderError("the header is overwritten with zeros", "E_ZERO_HEADER")
        while rest := self._stream.read(BLOCK * 64):
            if rest.count(0) != len(rest):
                at = self._stream.position - len(rest)
                raise DamagedStreamError(
                    "E_TRAILING_DATA", f"bytes other than zeros follow the end, after {at:,}"
                )
        self._stream.check_complete()

    def _record(self, header: Header) -> bytes:
        """Data of a PAX or long-name entry."""
        if header.size > self._config.max_header_bytes:
            cap = self._config.max_header_bytes
            raise HeaderError(f"a name or PAX record of {header.size:,} bytes is over {cap:,}")
        data = self._stream.read(header.size)
        if len(data) < header.size or not self._skip_padding(header.size):
            raise self._cut("a name or PAX record")
        return data

    def _file(self, entry: Header) -> Iterator[Member]:
        """A regular file, then the error that its data or padding ends in."""
        self._num_members += 1
        too_large = entry.size > self._config.max_member_bytes
        data, is_whole, damage = None, False, None
        try:
            if not too_large and self._wants(entry.name, entry.size):
                data = self._stream.read(entry.size)
                is_whole = len(data) == entry.size
            else:
                is_whole = self._stream.skip(entry.size) == entry.size
        except DamagedStreamError as error:
            damage = error
        yield Member(
            name=entry.name,
            offset=self._header_at,
            size=entry.size,
            data=data if is_whole else None,
            too_large=too_large,
            truncated=not is_whole,
        )
        if damage is not None:
            raise damage
        if not is_whole or not self._skip_padding(entry.size):
            raise self._cut(f"{escaped_name(entry.name)!r} of {entry.size:,} bytes")

    def _pass(self, entry: Header) -> None:
        """An entry that is no regular file: counted, its data read past."""
        self._ignored[entry.kind.value] += 1
        is_extended = entry.is_extended
        while is_extended:
            block = self._stream.read(BLOCK)
            is_extended = len(block) == BLOCK and block[504] != 0
        if self._stream.skip(entry.size) < entry.size or not self._skip_padding(entry.size):
            raise self._cut(f"an entry of {entry.size:,} bytes")

    def _skip_padding(self, size: int) -> bool:
        padding = -size % BLOCK
        return self._stream.skip(padding) == padding

    def _cut(self, what: str) -> DamagedStreamError:
        return DamagedStreamError(
            "E_TRUNCATED_ARCHIVE",
            f"cut at byte {self._stream.position:,}, inside {what} (header at byte {self._header_at:,})",
        )
