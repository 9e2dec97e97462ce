"""Headers of tar entries: one block of 512 bytes, checked and taken apart; PAX and long-name records."""

import re
from dataclasses import dataclass
from enum import Enum

BLOCK = 512

_MAX_SIZE = 2**62
_OCTAL = re.compile(rb"[0-7]+")
_DECIMAL = re.compile(rb"[0-9]{1,19}")


class HeaderError(Exception):
    """A header that cannot be believed. What follows it in the archive is lost."""

    def __init__(self, message: str, code: str = "E_BAD_HEADER") -> None:
        super().__init__(message)
        self.code = code


class EntryKind(Enum):
    """What a type flag announces. The values are the reasons under which ignored entries are counted."""

    FILE = "file"
    HARD_LINK = "hard_link"
    SYMLINK = "symlink"
    CHARACTER_DEVICE = "device"
    BLOCK_DEVICE = "block_device"
    DIRECTORY = "directory"
    FIFO = "fifo"
    SPARSE = "sparse"
    UNKNOWN = "unknown_type"
    LONG_NAME = "long_name"
    LONG_LINK = "long_link"
    PAX = "pax"
    PAX_GLOBAL = "pax_global"


_KINDS = {
    b"\0": EntryKind.FILE,
    b"0": EntryKind.FILE,
    b"7": EntryKind.FILE,
    b"1": EntryKind.HARD_LINK,
    b"2": EntryKind.SYMLINK,
    b"3": EntryKind.CHARACTER_DEVICE,
    b"4": EntryKind.BLOCK_DEVICE,
    b"5": EntryKind.DIRECTORY,
    b"6": EntryKind.FIFO,
    b"S": EntryKind.SPARSE,
    b"L": EntryKind.LONG_NAME,
    b"K": EntryKind.LONG_LINK,
    b"x": EntryKind.PAX,
    b"X": EntryKind.PAX,
    b"g": EntryKind.PAX_GLOBAL,
}

_WITHOUT_DATA = frozenset(
    {
        EntryKind.HARD_LINK,
        EntryKind.SYMLINK,
        EntryKind.CHARACTER_DEVICE,
        EntryKind.BLOCK_DEVICE,
        EntryKind.DIRECTORY,
        EntryKind.FIFO,
    }
)
"""Kinds whose size field means nothing: no data follows."""


@dataclass(kw_only=True)
class Overrides:
    """What PAX and long-name records say about the entry after them."""

    name: bytes | None = None
    size: int | None = None
    is_sparse: bool = False
    is_set: bool = False
    """A record was read, so an entry must follow."""

    def update(self, other: "Overrides") -> None:
        """Add what `other` sets."""
        self.is_set = True
        self.name = other.name if other.name is not None else self.name
        self.size = other.size if other.size is not None else self.size
        self.is_sparse = self.is_sparse or other.is_sparse


@dataclass(frozen=True, kw_only=True)
class Header:
    """One entry: what it is called, what it is, how many bytes of data follow."""

    name: bytes
    kind: EntryKind
    size: int
    is_extended: bool = False
    """GNU sparse: blocks of the sparse map follow the header."""

    def with_overrides(self, overrides: Overrides) -> "Header":
        """The entry as the records before it describe it."""
        name = self.name if overrides.name is None else overrides.name
        kind = EntryKind.SPARSE if overrides.is_sparse and self.kind is EntryKind.FILE else self.kind
        size = self.size if overrides.size is None or self.kind in _WITHOUT_DATA else overrides.size
        return Header(name=name, kind=kind, size=size, is_extended=self.is_extended)


def parse_header(block: bytes) -> Header:
    """The entry that a block announces; `HeaderError` when its checksum or a number is wrong."""
    _check_sum(block)
    kind = _KINDS.get(block[156:157], EntryKind.UNKNOWN)
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0" and (prefix := block[345:500].split(b"\0", 1)[0]):
        name = prefix + b"/" + name
    if block[156] == 0 and name.endswith(b"/"):
        kind = EntryKind.DIRECTORY  # as tars from before 1988 mark them
    size = 0 if kind in _WITHOUT_DATA else _number(block[124:136])
    return Header(name=name, kind=kind, size=size, is_extended=kind is EntryKind.SPARSE and block[482] != 0)


def parse_pax(data: bytes) -> Overrides:
    """Path, size and sparseness out of PAX records (`LENGTH KEY=VALUE\\n`); other keys are skipped."""
    overrides = Overrides()
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space != -1 else b""
        end = at + int(length) if _DECIMAL.fullmatch(length) else -1
        if not space < end <= len(data) or data[end - 1 : end] != b"\n":
            raise HeaderError("a PAX record does not have the length it claims")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise HeaderError("a PAX record has no '='")
        if key == b"path":
            overrides.name = value or None
        elif key == b"size":
            overrides.size = _decimal_size(value)
        elif key.startswith(b"GNU.sparse.") or key == b"SCHILY.realsize":
            overrides.is_sparse = True
        at = end
    return overrides


def _check_sum(block: bytes) -> None:
    """The sum of the block's bytes, its own field taken as spaces; some old writers added signed bytes."""
    stored = _number(block[148:156])
    others = block[:148] + b" " * 8 + block[156:]
    unsigned = sum(others)
    signed = unsigned - 256 * sum(byte > 127 for byte in others)
    if stored not in (unsigned, signed):
        raise HeaderError(f"the checksum is {stored}, the block adds up to {unsigned}")


def _number(field: bytes) -> int:
    """Octal text, or GNU's base 256."""
    if field[0] == 0xFF:
        raise HeaderError("a size is negative")
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
        if value > _MAX_SIZE:
            raise HeaderError(f"a size of {value:,} bytes is absurd")
        return value
    digits = field.split(b"\0", 1)[0].strip(b" ")
    if not digits:
        return 0
    if not _OCTAL.fullmatch(digits):
        raise HeaderError(f"{digits!r} is no octal number")
    return int(digits, 8)


def _decimal_size(value: bytes) -> int:
    if not _DECIMAL.fullmatch(value) or int(value) > _MAX_SIZE:
        raise HeaderError(f"the PAX size {value[:32]!r} is no size")
    return int(value)
