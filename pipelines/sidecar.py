"""JSON and TXT beside an image: licence, source and captions. A sidecar that cannot be used never fails its
image.

What is wrong is a note on the row, `E_SIDECAR:<reason>`, and the row's `sidecar` is null. Nothing is
decoded but UTF-8 text and strict JSON (RFC 8259: no NaN, no duplicate keys), within caps on size and depth.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ovsops.errors import ConfigError
from pipelines.redact import redact

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string, or the open end of one: it matches at every quote, so that time stays linear in hostile text."""
_BRACKET = re.compile(rb"[\[\]{}]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_SPACES = re.compile(r"[\t\n\u2028\u2029]+")


@dataclass(frozen=True, kw_only=True)
class SidecarConfig:
    """What is taken from sidecars. Of each list, the first field that holds text is used; `a.b` is nested."""

    max_bytes: int = 1_000_000
    """Bytes of one sidecar file."""
    max_depth: int = 64
    """Nested lists and objects of a JSON sidecar."""
    max_caption_chars: int = 10_000
    """Characters of one caption; longer ones are cut and noted `N_CAPTION_CUT:<column>`."""
    max_text_chars: int = 2_048
    """Characters of a licence or source URL; longer ones are not used."""
    license_fields: tuple[str, ...] = ("license", "licence", "license_name", "license_url", "LICENSE")
    source_url_fields: tuple[str, ...] = ("source_url", "url", "image_url", "URL")
    caption_short_fields: tuple[str, ...] = (
        "caption_short",
        "short_caption",
        "caption",
        "text",
        "alt",
        "TEXT",
    )
    caption_long_fields: tuple[str, ...] = ("caption_long", "long_caption", "detailed_caption")

    def __post_init__(self) -> None:
        for name in ("max_bytes", "max_depth", "max_caption_chars", "max_text_chars"):
            if getattr(self, name) < 1:
                raise ConfigError(f"reader.sidecar.{name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True, kw_only=True)
class SidecarFields:
    """Columns of one row."""

    sidecar: str | None = None
    """The JSON text as it was; written anew where a secret was taken out of it."""
    license: str | None = None
    source_url: str | None = None
    caption_short: str | None = None
    caption_long: str | None = None
    notes: tuple[str, ...] = ()


class _Unusable(Exception):  # noqa: N818  a reason, answered in this file
    """Why a sidecar is not used; the text becomes part of a note."""


def parse_sidecars(json_bytes: bytes | None, txt_bytes: bytes | None, config: SidecarConfig) -> SidecarFields:
    """The columns that the sidecars of one image give. A caption in the JSON goes before the one in the
    TXT.

    Signed URLs, keys and passwords are taken out of every text, noted `N_REDACTED:<column>`: outputs are passed on.
    """
    notes: list[str] = []
    text: str | None = None
    values: dict[str, Any] = {}
    columns: dict[str, str | None] = {}
    if json_bytes is not None:
        try:
            text, values = _load_object(json_bytes, config)
        except _Unusable as reason:
            notes.append(f"E_SIDECAR:{reason}")
    url = _short_text(values, config.source_url_fields, "source_url", config, notes)
    if url is not None and (clean := redact(url)) != url:
        notes.append("N_REDACTED:source_url")
        url = clean
    columns["source_url"] = url
    if _may_hold_secret(values) and (safe := _without_secrets(values)) != values:
        values, text = safe, json.dumps(safe)  # ASCII: escapes may stand for halves of surrogate pairs
        notes.append("N_REDACTED:sidecar")
    columns["license"] = _short_text(values, config.license_fields, "license", config, notes)
    columns["caption_short"] = _caption(
        _first_text(values, config.caption_short_fields, notes), "caption_short", config, notes
    )
    columns["caption_long"] = _caption(
        _first_text(values, config.caption_long_fields, notes), "caption_long", config, notes
    )
    if txt_bytes is not None:
        try:
            caption = _decode(txt_bytes, config)
        except _Unusable as reason:
            notes.append(f"E_SIDECAR:txt_{reason}")
        else:
            if (clean := redact(caption)) != caption:
                notes.append("N_REDACTED:txt")
                caption = clean
            columns["caption_short"] = columns["caption_short"] or _caption(
                caption, "caption_short", config, notes
            )
    return SidecarFields(sidecar=text, **columns, notes=tuple(dict.fromkeys(notes)))


def _texts(value: Any) -> Iterator[str]:
    """Every string in it, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield key
            yield from _texts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each)


def _may_hold_secret(values: dict[str, Any]) -> bool:
    """One look at all strings: sidecars without secrets are the rule."""
    joined = "\n".join(_texts(values))
    return redact(joined) != joined


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {redact(key): _without_secrets(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    return value


def _load_object(data: bytes, config: SidecarConfig) -> tuple[str, dict[str, Any]]:
    text = _decode(data, config)
    if _is_deeper(data, config.max_depth):
        raise _Unusable("too_deep")
    try:
        values = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except _Unusable:
        raise
    except (ValueError, RecursionError):  # ValueError: not JSON, or a number of thousands of digits
        raise _Unusable("not_json") from None
    if not isinstance(values, dict):
        raise _Unusable("not_an_object")
    return text, values


def _decode(data: bytes, config: SidecarConfig) -> str:
    if len(data) > config.max_bytes:
        raise _Unusable("too_large")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _Unusable("invalid_utf8") from None


def _is_deeper(data: bytes, max_depth: int) -> bool:
    """Whether brackets outside strings nest too deep, found without recursion."""
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", data)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Unusable("duplicate_keys")
    return values


def _no_constant(name: str) -> float:
    raise _Unusable("nan")


def _first_text(values: dict[str, Any], fields: Sequence[str], notes: list[str]) -> str | None:
    """The first of `fields` that holds text (or a whole number, as licence ids are)."""
    for name in fields:
        value = _look_up(values, name)
        if isinstance(value, str) and value.strip():
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            notes.append(f"N_FIELD_TYPE:{name}")
    return None


def _look_up(values: dict[str, Any], name: str) -> Any:
    if name in values:
        return values[name]
    at: Any = values
    for step in name.split("."):
        at = at.get(step) if isinstance(at, dict) else None
    return at


def _short_text(
    values: dict[str, Any], fields: Sequence[str], column: str, config: SidecarConfig, notes: list[str]
) -> str | None:
    text = _first_text(values, fields, notes)
    if text is None:
        return None
    clean = _clean(text)
    if len(clean) > config.max_text_chars:
        notes.append(f"N_TOO_LONG:{column}")
        return None
    return clean or None


def _caption(text: str | None, column: str, config: SidecarConfig, notes: list[str]) -> str | None:
    clean = _clean(text) if text is not None else ""
    if len(clean) > config.max_caption_chars:
        notes.append(f"N_CAPTION_CUT:{column}")
        clean = clean[: config.max_caption_chars].rstrip()
    return clean or None


def _clean(text: str) -> str:
    """One line without control characters, text-direction overrides and halves of surrogate pairs."""
    return _CONTROL.sub("", _SPACES.sub(" ", text)).strip()
