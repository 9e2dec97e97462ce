"""The contract of a training set, value by value: what the builder keeps to and the validator proves.

Values may come from anybody, so that every function takes `object` and answers with faults; none raises. The
numbers are those of the published FG-CLIP 2 trainer (360CVGroup/FG-CLIP b1af1cd,
fgclip2/train/train_fgclip2.py:241-406): its loss reshapes the texts of a region to 1 + 10 rows, a box with x1
> x2 raises, and a box without area pools to a vector that has no direction.
"""

import math
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeGuard, get_args

from ovsops.errors import ShapeError
from ovsops.masks.rle import rle_from_coco, rle_to_counts
from ovsops.negatives.candidates import Source
from pipelines.keys import name_fault

NUM_NEGATIVES = 10
SOURCES: tuple[str, ...] = get_args(Source)
"""Who may have written a negative."""
MAX_TEXT_CHARS = 10_000
"""Characters of one text; what is longer is no caption."""
_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


class Fault(NamedTuple):
    """One broken rule."""

    rule: str
    """A name of `pipelines.validation.rules.RULES`."""
    field: str
    message: str


def text_faults(text: object, field: str) -> Iterator[Fault]:
    """A caption or expression: text, not empty, lower case, on one line, of a sane length."""
    if not isinstance(text, str):
        yield Fault("type", field, f"{type_name(text)}, expected text")
    elif not text.strip():
        yield Fault("text_empty", field, "the text is empty")
    else:
        if text != text.lower():
            yield Fault("text_case", field, f"{shown(text)} is not lower case")
        if (bad := forbidden_character(text)) is not None:
            yield Fault("text_control", field, f"holds the control character U+{ord(bad):04X}")
        if len(text) > MAX_TEXT_CHARS:
            yield Fault("text_length", field, f"{len(text):,} characters, over {MAX_TEXT_CHARS:,}")


def box_faults(box: object, field: str) -> Iterator[Fault]:
    """A box `x1 y1 x2 y2` in shares of the image's sides; a fifth number may be its score."""
    if not isinstance(box, Sequence) or isinstance(box, str | bytes):
        yield Fault("type", field, f"{type_name(box)}, expected a list of 4 numbers")
        return
    if len(box) not in (4, 5):
        yield Fault("box_length", field, f"{len(box)} numbers, expected 4, or 5 with the score")
        return
    if not all(is_number(value) for value in box):
        yield Fault("type", field, f"{shown(box)} holds what is no number")
        return
    if not all(is_finite(value) for value in box):
        yield Fault("finite", field, f"{shown(box)} holds what is not finite")
        return
    x1, y1, x2, y2 = box[:4]
    if min(x1, y1, x2, y2) < 0 or max(x1, y1, x2, y2) > 1:
        yield Fault("box_range", field, f"{shown(box)} leaves 0..1: give shares of width and height")
    if x1 > x2 or y1 > y2:
        yield Fault("box_order", field, f"{shown(box)} has x1 > x2 or y1 > y2")
    elif x1 == x2 or y1 == y2:
        yield Fault("box_area", field, f"{shown(box)} has no area: nothing can be pooled from it")


def negatives_faults(positive: object, negatives: Sequence[object], field: str) -> Iterator[Fault]:
    """Exactly ten texts, all different, none of them the positive; marks, case and spaces tell no two texts apart."""
    if len(negatives) != NUM_NEGATIVES:
        yield Fault(
            "negatives_count",
            field,
            f"{len(negatives)} negatives, expected exactly {NUM_NEGATIVES}: losses take {NUM_NEGATIVES + 1} rows",
        )
    known = {canonical(positive): "the positive"} if isinstance(positive, str) else {}
    for number, text in enumerate(negatives):
        yield from text_faults(text, f"{field}[{number}]")
        if not isinstance(text, str):
            continue
        if (same := known.get(canonical(text))) is not None:
            rule = "negatives_positive" if same == "the positive" else "negatives_distinct"
            yield Fault(rule, f"{field}[{number}]", f"{shown(text)} is {same}")
        else:
            known[canonical(text)] = f"negative {number} again"


def source_faults(sources: Sequence[object], field: str) -> Iterator[Fault]:
    """Who wrote the negatives: words of `SOURCES`, so that counts by source add up."""
    for number, source in enumerate(sources):
        if source not in SOURCES:
            yield Fault(
                "negatives_source", f"{field}[{number}]", f"{shown(source)}, expected {' or '.join(SOURCES)}"
            )


def segmentation_faults(rle: object, size_hw: tuple[int, int] | None, field: str) -> Iterator[Fault]:
    """A COCO compressed RLE that is a mask of the image's size."""
    if not isinstance(rle, dict) or not isinstance(rle.get("counts"), str):
        yield Fault("type", field, f"{type_name(rle)}, expected an RLE with size and compressed counts")
        return
    size = rle.get("size")
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(is_whole(side) for side in size):
        yield Fault("type", f"{field}.size", f"{shown(size)}, expected height and width")
        return
    if size_hw is not None and tuple(size) != size_hw:
        yield Fault(
            "rle", field, f"a mask of {size[0]}x{size[1]} in an image of {size_hw[0]}x{size_hw[1]} (h x w)"
        )
    try:
        rle_to_counts(rle_from_coco(rle))
    except ShapeError as error:
        yield Fault("rle", field, str(error)[:200])


def path_faults(path: object, field: str) -> Iterator[Fault]:
    """A path below the set's folder: relative, without `..`, control characters or backslashes."""
    if not isinstance(path, str):
        yield Fault("type", field, f"{type_name(path)}, expected text")
    elif not path:
        yield Fault("field", field, "the path is empty")
    else:
        encoded = path.encode("utf-8", "surrogatepass")
        parts = [encoded] if len(encoded) <= 255 else encoded.split(b"/")  # the cap is on names, not on paths
        fault = next(filter(None, map(name_fault, parts)), "")
        if fault or "\\" in path or len(encoded) > 4096:
            yield Fault("path", field, f"{shown(path)}: {fault or 'no portable relative path'}")


def canonical(text: str) -> str:
    """What makes two texts the same for a reader: without case, spaces between words, width forms and end marks."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).rstrip(" .。!！;；,，")


def forbidden_character(text: str) -> str | None:
    """The first character that breaks lines, reorders text or is none at all."""
    if text.isascii() and text.isprintable():
        return None
    return next((c for c in text if c in _BIDI or unicodedata.category(c) in _FORBIDDEN), None)


def is_number(value: object) -> TypeGuard[float]:
    """A number of JSON. True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_finite(value: object) -> bool:
    """A number that a float can hold."""
    if not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def is_whole(value: object) -> TypeGuard[int]:
    """A whole number of JSON."""
    return isinstance(value, int) and not isinstance(value, bool)


def shown(value: object, max_chars: int = 80) -> str:
    """A hostile value on one short line."""
    text = ascii(value[:max_chars]) if isinstance(value, str) else ascii(_head(value))
    if isinstance(value, str) and value.isprintable():
        text = repr(value[:max_chars])
    return text if len(text) <= max_chars + 2 else f"{text[:max_chars]}..."


def type_name(value: object) -> str:
    """JSON's word for a value's type."""
    names = {
        type(None): "null",
        bool: "true or false",
        dict: "an object",
        list: "a list",
        str: "text",
        bytes: "bytes",
    }
    return names.get(type(value), "a number" if is_number(value) else type(value).__name__)


def _head(value: object) -> object:
    """A value that is quick to print."""
    if isinstance(value, list | tuple):
        return [_head(item) if not isinstance(item, list | tuple) else "a list" for item in value[:8]]
    return value if is_number(value) and is_finite(value) else type_name(value)
