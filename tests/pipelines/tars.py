"""Archives for tests: whole ones by Python's tarfile, damaged ones by changing their bytes."""

import gzip
import io
import json
import tarfile
from collections.abc import Iterable

from PIL import Image

BLOCK = 512


def tiny_jpeg(value: int = 0) -> bytes:
    """A whole 8x8 JPEG; different values give different bytes."""
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value % 256, value // 256 % 256, 128)).save(stream, "JPEG")
    return stream.getvalue()


def make_tar(
    members: Iterable[tuple[str | tarfile.TarInfo, bytes]], *, format: int = tarfile.PAX_FORMAT
) -> bytes:
    """A whole archive, in memory."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            if info.isreg():
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def make_shard(num_images: int, *, first: int = 0) -> bytes:
    """Images 000000.jpg ... each with a JSON sidecar."""
    members: list[tuple[str | tarfile.TarInfo, bytes]] = []
    for n in range(first, first + num_images):
        members += [
            (f"{n:06d}.jpg", tiny_jpeg(n)),
            (f"{n:06d}.json", json.dumps({"caption": f"number {n}", "license": "cc0"}).encode()),
        ]
    return make_tar(members)


def raw_header(name: bytes, size: int | bytes, *, flag: bytes = b"0", magic: bytes = b"ustar\x0000") -> bytes:
    """One header block with a right checksum, whatever it claims. `size` as bytes is the field itself."""
    field = size if isinstance(size, bytes) else b"%011o\0" % size
    block = bytearray(BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"0000644\0"
    block[124:136] = field.ljust(12, b"\0")
    block[136:148] = b"%011o\0" % 0
    block[156:157] = flag
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 8 * 32 + sum(block[156:]))
    return bytes(block)


def raw_member(name: bytes, data: bytes, *, flag: bytes = b"0") -> bytes:
    """Header, data and padding."""
    return raw_header(name, len(data), flag=flag) + data + b"\0" * (-len(data) % BLOCK)


END = b"\0" * (2 * BLOCK)


def header_at(archive: bytes, number: int) -> int:
    """Offset of the header of the `number`-th regular member, counted from 0."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        return reader.getmembers()[number].offset


def data_at(archive: bytes, number: int) -> int:
    """Offset of that member's data."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as reader:
        return reader.getmembers()[number].offset_data


def gz(*parts: bytes) -> bytes:
    """Gzip members one after the other."""
    return b"".join(gzip.compress(part, mtime=0) for part in parts)
