"""Members of a shard grouped into samples: one image each, with its sidecars, in the order of the shard.

WebDataset wants the members of a sample side by side. Where they are not (`0.jpg 1.jpg 0.json 1.json`), a
sidecar is put back to its sample within a window of recent samples; the sample then carries
`N_INTERLEAVED`. What comes later than that is a failed row `E_INTERLEAVED`, never half a sample. The result
depends on the order of members alone.

    the same image name again                           second row `E_DUPLICATE_KEY`
    another image of the key (a.jpg, a.png, a.seg.png)  second row `E_SECOND_IMAGE`, or see `ignored_fields`
    sidecars without an image                           `E_NO_IMAGE`; `E_INTERLEAVED` when it came long before
    only an image of a kind that is not read (a.gif)    `E_UNSUPPORTED_IMAGE`
    a name that cannot be a key                         `E_NAME`, with the name escaped
    an image over the size cap, or cut off              `E_MEMBER_TOO_LARGE`, `E_TRUNCATED_ARCHIVE`

Keys that differ by case or Unicode form are different keys; one that is not in normal form C is noted
`N_KEY_NOT_NFC`.
"""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from ovsops.errors import ConfigError
from pipelines.keys import (
    FOREIGN_IMAGE_EXTENSIONS,
    IMAGE_EXTENSIONS,
    PICKLE_EXTENSIONS,
    SIDECAR_EXTENSIONS,
    archive_key,
    escaped_name,
    extension_of,
    name_fault,
)
from pipelines.tar import Member

MAX_SIDECARS = 64
"""Sidecar files that one sample holds; more are counted as `extra_sidecar`."""


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How members become samples."""

    window_samples: int = 64
    """Recent samples that stay open for members that come late."""
    window_bytes: int = 32 * 2**20
    """Bytes that the open samples may hold together."""
    ignored_fields: tuple[str, ...] = ()
    """Fields that look like images and are annotations (`seg.png`): not read, counted."""

    def __post_init__(self) -> None:
        if self.window_samples < 1:
            raise ConfigError(f"reader.samples.window_samples is {self.window_samples}: give 1 or more")
        if self.window_bytes < 0:
            raise ConfigError(f"reader.samples.window_bytes is {self.window_bytes}: give 0 or more")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row to be: an image, or why there is none."""

    key: str
    image: bytes | None = None
    json: bytes | None = None
    txt: bytes | None = None
    notes: tuple[str, ...] = ()
    error_code: str = ""
    error_message: str = ""


@dataclass(kw_only=True)
class _Open:
    """A sample that may still grow."""

    key: str
    image_field: str = ""
    image: bytes | None = None
    error: tuple[str, str] | None = None
    sidecars: dict[str, bytes] = field(default_factory=dict)
    foreign: list[str] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    is_late: bool = False

    @property
    def num_bytes(self) -> int:
        return len(self.image or b"") + sum(map(len, self.sidecars.values()))


class SampleGrouper:
    """Takes members one by one and gives samples back when no member can join them any more."""

    def __init__(
        self,
        config: SampleConfig | None = None,
        *,
        max_sidecar_bytes: int,
        split_name: Callable[[str], tuple[str, str] | None] = archive_key,
        orphans_fail: bool = True,
    ) -> None:
        """`split_name` gives key and field of a name. `orphans_fail=False` counts sidecars without an image
        instead of making rows of them.
        """
        self._config = config or SampleConfig()
        self._max_sidecar_bytes = max_sidecar_bytes
        self._split_name, self._orphans_fail = split_name, orphans_fail
        self._window: dict[str | int, _Open] = {}
        self._window_bytes = 0
        self._num_failures = 0
        self._previous_key = ""
        self._labelled: set[bytes] = set()
        self.ignored: Counter[str] = Counter()
        """Members that belong to no row, by reason."""

    def wants(self, name: bytes, size: int) -> bool:
        """Whether a member's bytes are needed."""
        if name_fault(name):
            return False
        parts = self._split_name(name.decode())
        if parts is None or parts[1].lower() in self._config.ignored_fields:
            return False
        extension = _extension(parts[1])
        return extension in IMAGE_EXTENSIONS or (
            extension in SIDECAR_EXTENSIONS and size <= self._max_sidecar_bytes
        )

    def add(self, member: Member) -> Iterator[Sample]:
        """The samples that are finished now that `member` is known."""
        if fault := name_fault(member.name):
            self._refuse(member.name, fault)
        elif (parts := self._split_name(member.name.decode())) is None:
            self.ignored["no_key"] += 1
        else:
            self._place(*parts, member)
            self._previous_key = parts[0]
        yield from self._overflow()

    def close(self, *, is_damaged: bool = False) -> Iterator[Sample]:
        """The samples that are left. After damage, the last one is noted: its sidecars may be missing."""
        last = next(reversed(self._window.values()), None)
        if is_damaged and last is not None and last.error is None:
            last.notes["N_BEFORE_DAMAGE"] = None
        while self._window:
            yield from self._pop()

    def _refuse(self, name: bytes, fault: str) -> None:
        if extension_of(name.decode("utf-8", "replace")) in IMAGE_EXTENSIONS:
            self._fail(escaped_name(name), "E_NAME", f"{fault}: rename it")
        else:
            self.ignored["hostile_name"] += 1

    def _place(self, key: str, field_name: str, member: Member) -> None:
        field_name = field_name.lower()
        extension = _extension(field_name)
        if field_name in self._config.ignored_fields:
            self.ignored["ignored_field"] += 1
        elif extension in IMAGE_EXTENSIONS:
            self._place_image(key, field_name, member)
        elif extension in SIDECAR_EXTENSIONS:
            self._place_sidecar(key, field_name, member)
        elif extension in FOREIGN_IMAGE_EXTENSIONS:
            self._open(key).foreign.append(extension)
        else:
            self.ignored["pickle" if extension in PICKLE_EXTENSIONS else "other_field"] += 1

    def _place_image(self, key: str, field_name: str, member: Member) -> None:
        known = self._window.get(key)
        if (known is None or not known.image_field) and _digest(key) in self._labelled:
            self._fail(key, "E_DUPLICATE_KEY", f"an image of the key {key!r} came earlier in the shard")
        elif known is not None and known.image_field == field_name:
            self._fail(
                key, "E_DUPLICATE_KEY", f"{key}.{field_name} is in the shard twice; the first one is kept"
            )
        elif known is not None and known.image_field:
            self._fail(
                key,
                "E_SECOND_IMAGE",
                f"{key}.{field_name} and {key}.{known.image_field} share a key: rename one, or name the field "
                "in input.reader.samples.ignored_fields if it is an annotation",
            )
        else:
            sample = self._open(key)
            sample.image_field, sample.image = field_name, member.data
            sample.error = _image_error(member)
            self._labelled.add(_digest(key))
            self._window_bytes += len(member.data or b"")

    def _place_sidecar(self, key: str, field_name: str, member: Member) -> None:
        sample = self._open(key)
        if field_name in sample.sidecars:
            self.ignored["duplicate_sidecar"] += 1
        elif len(sample.sidecars) >= MAX_SIDECARS:
            self.ignored["extra_sidecar"] += 1
        elif member.data is None:
            sample.notes["E_SIDECAR:truncated" if member.truncated else "E_SIDECAR:too_large"] = None
            sample.sidecars[field_name] = b""
        else:
            sample.sidecars[field_name] = member.data
            self._window_bytes += len(member.data)

    def _open(self, key: str) -> _Open:
        known = self._window.get(key)
        if known is None:
            known = self._window[key] = _Open(key=key, is_late=_digest(key) in self._labelled)
        elif key != self._previous_key:
            known.notes["N_INTERLEAVED"] = None
        return known

    def _fail(self, key: str, code: str, message: str) -> None:
        self._num_failures += 1
        self._window[self._num_failures] = _Open(key=key, error=(code, message))

    def _overflow(self) -> Iterator[Sample]:
        config = self._config
        while len(self._window) > config.window_samples or (
            len(self._window) > 1 and self._window_bytes > config.window_bytes
        ):
            yield from self._pop()

    def _pop(self) -> Iterator[Sample]:
        sample = self._window.pop(next(iter(self._window)))
        self._window_bytes -= sample.num_bytes
        if not unicodedata.is_normalized("NFC", sample.key):
            sample.notes["N_KEY_NOT_NFC"] = None
        if sample.image_field:
            self.ignored["foreign_image"] += len(sample.foreign)
            yield self._finished(sample)
        elif (error := sample.error or self._orphan_error(sample)) is not None:
            code, message = error
            yield Sample(key=sample.key, notes=tuple(sample.notes), error_code=code, error_message=message)

    def _finished(self, sample: _Open) -> Sample:
        """The sample with the sidecars of its image: `b.json` before `json` for an image `b.jpg`."""
        stem = sample.image_field[: -len(_extension(sample.image_field))]
        chosen = {}
        for extension in ("json", "txt"):
            name = stem + extension if stem + extension in sample.sidecars else extension
            chosen[extension] = sample.sidecars.pop(name, b"") or None
        self.ignored["other_sidecar"] += len(sample.sidecars)
        code, message = sample.error or ("", "")
        return Sample(
            key=sample.key,
            image=None if code else sample.image,
            json=chosen["json"],
            txt=chosen["txt"],
            notes=tuple(sample.notes),
            error_code=code,
            error_message=message,
        )

    def _orphan_error(self, sample: _Open) -> tuple[str, str] | None:
        fields = ", ".join(sorted({*sample.foreign, *sample.sidecars})[:8])
        if sample.foreign:
            kinds = ", ".join(sorted(IMAGE_EXTENSIONS))
            return "E_UNSUPPORTED_IMAGE", f"the sample holds {fields}; images are read from {kinds}"
        if not self._orphans_fail:
            self.ignored["orphan_sidecar"] += len(sample.sidecars)
            return None
        if sample.is_late:
            return "E_INTERLEAVED", (
                f"{fields} of {sample.key!r} came too long after its image: sort the shard by name"
            )
        return "E_NO_IMAGE", f"the sample holds {fields} and no image"


def _image_error(member: Member) -> tuple[str, str] | None:
    if member.too_large:
        return (
            "E_MEMBER_TOO_LARGE",
            f"the image claims {member.size:,} bytes, over reader.tar.max_member_bytes",
        )
    if member.truncated:
        return "E_TRUNCATED_ARCHIVE", f"the archive ends inside this image of {member.size:,} bytes"
    return None


def _extension(field_name: str) -> str:
    return field_name.rsplit(".", 1)[-1].lower()


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=8).digest()
