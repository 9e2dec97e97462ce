"""One region of an item against the contract: box, expressions, negatives, mask."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovsops.errors import ShapeError
from ovsops.masks.rle import rle_box_xywh, rle_from_coco
from pipelines.training_sets.build import language_of
from pipelines.training_sets.contract import (
    Fault,
    box_faults,
    canonical,
    is_whole,
    negatives_faults,
    segmentation_faults,
    shown,
    source_faults,
    text_faults,
    type_name,
)

_PIXEL_TOLERANCE = 1.01
"""Pixels by which a mask may leave its box."""
_MARKS = frozenset(" ,.;:!?'\"-()。，；：！？、")


def region_faults(
    region: Mapping[str, Any], size_hw: tuple[int, int] | None, at: str, *, is_published: bool
) -> Iterator[Fault]:
    """What is wrong with a region; `is_published` wants negatives as an object, as the published trainer reads them."""
    if "bbox" not in region:
        yield Fault("field", f"{at}.bbox", "is missing")
    else:
        yield from box_faults(region["bbox"], f"{at}.bbox")
    for name in ("short_expr", "long_expr"):
        if name not in region:
            yield Fault("field", f"{at}.{name}", "is missing")
        else:
            yield from text_faults(region[name], f"{at}.{name}")
    yield from _negatives_faults(region, at, is_published=is_published)
    rle = region.get("segmentation")
    if rle is not None:
        found = list(segmentation_faults(rle, size_hw, f"{at}.segmentation"))
        yield from found or _mask_box_faults(rle, region.get("bbox"), at)


def _negatives_faults(region: Mapping[str, Any], at: str, *, is_published: bool) -> Iterator[Fault]:
    flag, negatives = region.get("flag_short_neg"), region.get("short_expr_negs")
    if "flag_short_neg" not in region:
        yield Fault("field", f"{at}.flag_short_neg", "is missing")
    elif not is_whole(flag) or flag not in (0, 1):
        yield Fault("type", f"{at}.flag_short_neg", f"{shown(flag)}, expected 0 or 1")
    if negatives is None and flag != 1:
        return
    if not isinstance(negatives, dict if is_published else list):
        what = "an object with ten values" if is_published else "a list of ten texts"
        yield Fault("type", f"{at}.short_expr_negs", f"{type_name(negatives)}, expected {what}")
        return
    texts = list(negatives.values()) if isinstance(negatives, dict) else list(negatives or ())
    if not texts and flag != 1:
        return
    if flag != 1 and "flag_short_neg" in region:
        yield Fault("negatives_flag", f"{at}.flag_short_neg", f"{len(texts)} negatives that no trainer reads")
    yield from negatives_faults(region.get("short_expr"), texts, f"{at}.short_expr_negs")
    yield from language_faults(region.get("short_expr"), texts, f"{at}.short_expr_negs")
    for name in ("neg_types", "neg_scores", "neg_sources"):
        column = region.get(name)
        if column is not None and not isinstance(column, list):
            yield Fault("type", f"{at}.{name}", f"{type_name(column)}, expected a list")
        elif column and len(column) != len(texts):
            yield Fault("negatives_columns", f"{at}.{name}", f"{len(column)} for {len(texts)} negatives")
        elif column and name == "neg_sources":
            yield from source_faults(column, f"{at}.{name}")


def language_faults(positive: object, negatives: Sequence[object], field: str) -> Iterator[Fault]:
    """Negatives in Chinese of a positive that is not, and the other way about: the script alone tells them apart."""
    if not isinstance(positive, str) or not positive.strip():
        return
    said = language_of(positive)
    for number, text in enumerate(negatives):
        if isinstance(text, str) and text.strip() and language_of(text) != said:
            yield Fault(
                "language", f"{field}[{number}]", f"{shown(text)} beside the positive {shown(positive)}"
            )


def region_notes(region: Mapping[str, Any], at: str) -> Iterator[Fault]:
    """What a reader may want to look at, and is no fault."""
    negatives = region.get("short_expr_negs")
    if region.get("flag_short_neg") == 1 and isinstance(negatives, dict | list):
        texts = list(negatives.values()) if isinstance(negatives, dict) else negatives
        yield from order_notes(region.get("short_expr"), texts, f"{at}.short_expr_negs")


def order_notes(positive: object, negatives: Sequence[object], field: str) -> Iterator[Fault]:
    """Negatives with the very words of their positive. "A cat on a dog" is false of a dog on a cat; "a cup and a plate"
    is as true as "a plate and a cup".
    """
    if not isinstance(positive, str):
        return
    letters, words = _letters(positive), _words(positive)
    for number, text in enumerate(negatives):
        if not isinstance(text, str) or _letters(text) != letters:
            continue
        if _words(text) == words and canonical(text) != canonical(positive):
            message = f"{shown(text)} has the words of {shown(positive)} in another order: is it false?"
            yield Fault("same_words", f"{field}[{number}]", message)


def _letters(text: str) -> set[str]:
    """What two texts of the same words share, at little cost."""
    return set(text.lower()) - _MARKS


def _words(text: str) -> list[str]:
    """Words sorted; of a Chinese text its characters."""
    plain = canonical(text)
    return sorted(re.findall(r"\w", plain) if language_of(plain) == "zh" else re.findall(r"\w+", plain))


def _mask_box_faults(rle: Mapping[str, Any], box: object, at: str) -> Iterator[Fault]:
    """The mask must not leave its box by more than a pixel."""
    if not isinstance(box, list) or list(box_faults(box, at)):
        return
    try:
        x, y, w, h = rle_box_xywh(rle_from_coco(rle))
    except ShapeError as error:
        yield Fault("rle", f"{at}.segmentation", str(error)[:200])
        return
    height, width = rle["size"]
    x1, y1, x2, y2 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    leaves = max(x1 - x, y1 - y, x + w - x2, y + h - y2)
    if w == 0:
        yield Fault("rle_box", f"{at}.segmentation", "the mask is empty")
    elif leaves > _PIXEL_TOLERANCE:
        yield Fault("rle_box", f"{at}.segmentation", f"the mask leaves its box by {leaves:.1f} pixels")
