"""Reads a scene's truth back, from bytes that anybody may have written. Axes: h w pixels.

Everything is checked: fields and their types, names against the world's vocabulary, and that the masks of things and
backgrounds cover every pixel exactly once and agree with the boxes and areas.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import numpy as np
from jaxtyping import UInt8

from ovsops.errors import RowError, ShapeError
from ovsops.masks.rle import Rle, rle_from_coco, rle_runs
from ovsops.masks.runs import Runs, run_areas, run_boxes_xyxy
from ovsops.miniature.attributes import (
    CLASS_IDS,
    COLOUR_WORDS,
    LANGUAGES,
    MATERIAL_WORDS,
    NOUN_WORDS,
    PATTERN_WORDS,
    SIZE_WORDS,
    STUFF_WORDS,
    Language,
)
from ovsops.miniature.captions import Length
from ovsops.miniature.relations import RELATION_NAMES, Relation
from ovsops.miniature.samples import FORMAT

MAX_BYTES = 4_000_000
"""Of one truth file."""
MAX_SIDE = 4096
"""Pixels of a side."""
MAX_THINGS = 200
"""Instance maps hold uint8."""
_MAX_TEXT = 2_000

T = TypeVar("T")
Texts = Mapping[Language, Mapping[Length, str]]
"""Texts by language, then by length."""


@dataclass(frozen=True, kw_only=True)
class ThingTruth:
    """What is true of one thing."""

    noun: str
    colour: str
    pattern: str
    material: str
    size: str
    box_xywh: tuple[int, int, int, int]
    """Tight box of the visible pixels."""
    area: int
    """Visible pixels."""
    hidden_share: float
    """Share of its pixels within the picture that other things hide."""
    phrases: Texts
    rle: Rle


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneTruth:
    """What is true of a scene, with its maps."""

    seed: int
    size_hw: tuple[int, int]
    things: tuple[ThingTruth, ...]
    stuffs: tuple[str, ...]
    """One background, or the upper and the lower one."""
    stuff_rles: tuple[Rle, ...]
    relations: tuple[Relation, ...]
    captions: Texts
    instances: UInt8[np.ndarray, "h w"]
    """0 where there is no thing, else 1 + the place in `things`."""
    semantic: UInt8[np.ndarray, "h w"]
    """Class id of every pixel, 1 to 20."""


def read_truth(data: bytes | str) -> SceneTruth:
    """The truth of one scene. RowError `E_TRUTH` says what is wrong and where."""
    root = _load(data)
    found = _text(root, "format", "truth")
    if found != FORMAT:
        _fail("truth.format", f"is {found[:40]!r}, expected {FORMAT!r}; write the shards anew")
    height, width = _integers(root, "size_hw", "truth", length=2, most=MAX_SIDE)
    if height < 1 or width < 1:
        _fail("truth.size_hw", f"is {height}x{width}, expected sides of 1 to {MAX_SIDE} pixels")
    size_hw = (height, width)
    things = tuple(
        _thing(item, f"truth.things[{i}]", size_hw)
        for i, item in enumerate(_list(root, "things", "truth", most=MAX_THINGS))
    )
    stuffs, stuff_rles = [], []
    for i, item in enumerate(_list(root, "stuffs", "truth", most=len(STUFF_WORDS))):
        where = f"truth.stuffs[{i}]"
        entry = _mapping(item, where)
        stuffs.append(_name(entry, "name", where, STUFF_WORDS))
        stuff_rles.append(_rle(entry, where, size_hw))
    if len(set(stuffs)) < len(stuffs):
        _fail("truth.stuffs", f"name one twice: {stuffs}")
    instances, semantic = _maps(things, stuffs, stuff_rles, size_hw)
    return SceneTruth(
        seed=_integer(root, "seed", "truth", most=2**63 - 1),
        size_hw=size_hw,
        things=things,
        stuffs=tuple(stuffs),
        stuff_rles=tuple(stuff_rles),
        relations=_relations(root, len(things)),
        captions=_texts(root, "captions", "truth"),
        instances=instances,
        semantic=semantic,
    )


def _thing(item: Any, where: str, size_hw: tuple[int, int]) -> ThingTruth:
    entry = _mapping(item, where)
    hidden = _get(entry, "hidden_share", where)
    if isinstance(hidden, bool) or not isinstance(hidden, int | float) or not 0 <= hidden < 1:
        _fail(f"{where}.hidden_share", f"is {_shown(hidden)}, expected 0 or more and below 1")
    x, y, w, h = _integers(entry, "box_xywh", where, length=4, most=MAX_SIDE)
    thing = ThingTruth(
        noun=_name(entry, "noun", where, NOUN_WORDS),
        colour=_name(entry, "colour", where, COLOUR_WORDS),
        pattern=_name(entry, "pattern", where, PATTERN_WORDS),
        material=_name(entry, "material", where, MATERIAL_WORDS),
        size=_name(entry, "size", where, SIZE_WORDS),
        box_xywh=(x, y, w, h),
        area=_integer(entry, "area", where, most=size_hw[0] * size_hw[1]),
        hidden_share=float(hidden),
        phrases=_texts(entry, "phrases", where),
        rle=_rle(entry, where, size_hw),
    )
    runs = rle_runs(thing.rle)
    area = int(run_areas(runs, 1)[0])
    x0, y0, x1, y1 = run_boxes_xyxy(runs, 1, size_hw[0])[0].tolist()
    if area == 0 or area != thing.area:
        _fail(f"{where}.area", f"is {thing.area}, the mask has {area} pixels; a thing has at least one")
    if (x0, y0, x1 - x0, y1 - y0) != thing.box_xywh:
        _fail(f"{where}.box_xywh", f"is {[x, y, w, h]}, the mask's box is {[x0, y0, x1 - x0, y1 - y0]}")
    return thing


def _maps(
    things: tuple[ThingTruth, ...], stuffs: list[str], stuff_rles: list[Rle], size_hw: tuple[int, int]
) -> tuple[UInt8[np.ndarray, "h w"], UInt8[np.ndarray, "h w"]]:
    """Instance and semantic map; the masks must tile the picture."""
    runs: list[Runs] = [rle_runs(rle) for rle in (*(thing.rle for thing in things), *stuff_rles)]
    starts = np.concatenate([np.zeros(0, np.int64), *(r.starts for r in runs)])
    ends = np.concatenate([np.zeros(0, np.int64), *(r.ends for r in runs)])
    owners = np.repeat(np.arange(len(runs)), [len(r) for r in runs])
    order = np.argsort(starts, kind="stable")
    starts, ends, owners = starts[order], ends[order], owners[order]
    height, width = size_hw
    edges = np.concatenate([[0], ends])
    gaps = np.flatnonzero(edges != np.append(starts, height * width))
    if len(gaps):
        column, row = divmod(int(edges[gaps[0]]), height)
        _fail("truth", f"masks overlap or leave a gap near row {row}, column {column}; every pixel is in one")
    names = [*(thing.noun for thing in things), *stuffs]
    numbers = [*range(1, len(things) + 1), *(0 for _ in stuffs)]
    lengths = ends - starts
    instances, semantic = (
        np.ascontiguousarray(np.repeat(np.array(values, np.uint8)[owners], lengths).reshape(width, height).T)
        for values in (numbers, [CLASS_IDS[name] for name in names])
    )
    return instances, semantic


def _relations(root: Mapping[str, Any], num_things: int) -> tuple[Relation, ...]:
    relations = []
    for i, item in enumerate(_list(root, "relations", "truth", most=MAX_THINGS * MAX_THINGS)):
        where = f"truth.relations[{i}]"
        entry = _mapping(item, where)
        subject, other = (
            _integer(entry, field, where, most=num_things - 1) for field in ("subject", "object")
        )
        if subject == other:
            _fail(where, f"relates thing {subject} to itself")
        name = _name(entry, "name", where, {known: known for known in RELATION_NAMES})
        relations.append(
            Relation(subject=subject, name=next(n for n in RELATION_NAMES if n == name), object=other)
        )
    return tuple(relations)


def _texts(entry: Mapping[str, Any], field: str, where: str) -> Texts:
    where = f"{where}.{field}"
    languages = _mapping(_get(entry, field, where), where)
    lengths: tuple[Length, ...] = ("short", "long")
    return {
        language: {
            length: _text(_mapping(_get(languages, language, where), f"{where}.{language}"), length, where)
            for length in lengths
        }
        for language in LANGUAGES
    }


def _rle(entry: Mapping[str, Any], where: str, size_hw: tuple[int, int]) -> Rle:
    where = f"{where}.segmentation"
    segmentation = _mapping(_get(entry, "segmentation", where), where)
    size = _integers(segmentation, "size", where, length=2, most=MAX_SIDE)
    if tuple(size) != size_hw:
        _fail(f"{where}.size", f"is {size}, the scene's is {list(size_hw)}")
    counts = _get(segmentation, "counts", where)
    if not isinstance(counts, str):
        _fail(f"{where}.counts", f"is {_shown(counts)}, expected compressed COCO RLE")
    try:
        return rle_from_coco({"size": size, "counts": counts})
    except ShapeError as error:
        raise RowError("E_TRUTH", f"{where}: {error}") from error


def _load(data: bytes | str) -> Mapping[str, Any]:
    if len(data) > MAX_BYTES:
        _fail("truth", f"has {len(data)} bytes, at most {MAX_BYTES} are read")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        root = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise RowError("E_TRUTH", f"truth is no JSON of a scene: {error}") from error
    return _mapping(root, "truth")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")


def _get(entry: Mapping[str, Any], field: str, where: str) -> Any:
    if field not in entry:
        _fail(where, f"has no field {field!r}; expected it beside {sorted(entry)[:12]}")
    return entry[field]


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _fail(where, f"is {_shown(value)}, expected an object")
    return value


def _list(entry: Mapping[str, Any], field: str, where: str, *, most: int) -> list[Any]:
    value = _get(entry, field, where)
    if not isinstance(value, list) or len(value) > most:
        _fail(f"{where}.{field}", f"is {_shown(value)}, expected a list of at most {most}")
    return value


def _integer(entry: Mapping[str, Any], field: str, where: str, *, most: int) -> int:
    value = _get(entry, field, where)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        _fail(f"{where}.{field}", f"is {_shown(value)}, expected a whole number from 0 to {most}")
    return value


def _integers(entry: Mapping[str, Any], field: str, where: str, *, length: int, most: int) -> list[int]:
    values = _list(entry, field, where, most=length)
    if len(values) != length:
        _fail(f"{where}.{field}", f"has {len(values)} numbers, expected {length}")
    numbered = {str(i): value for i, value in enumerate(values)}
    return [_integer(numbered, str(i), f"{where}.{field}", most=most) for i in range(length)]


def _text(entry: Mapping[str, Any], field: str, where: str) -> str:
    value = _get(entry, field, where)
    if not isinstance(value, str) or not value.strip() or len(value) > _MAX_TEXT:
        _fail(f"{where}.{field}", f"is {_shown(value)}, expected a text of 1 to {_MAX_TEXT} characters")
    return value


def _name(entry: Mapping[str, Any], field: str, where: str, known: Mapping[str, Any]) -> str:
    value = _text(entry, field, where)
    if value not in known:
        _fail(f"{where}.{field}", f"is {value[:40]!r}, expected one of {', '.join(known)}")
    return value


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | None) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:60]}..."


def _fail(where: str, what: str) -> NoReturn:
    raise RowError("E_TRUTH", f"{where} {what}")
