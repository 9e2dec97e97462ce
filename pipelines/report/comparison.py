"""A picture beside label maps of it: the truth, and what a run said. Axes: h w pixels, H W pixels of a panel."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image, ImageDraw, ImageFont

from pipelines.report.overlay import category_colour, wrap_legend

PANEL_SIDE = 288
"""Long side of a panel on a page: small pictures are shown larger, large ones smaller."""
_MAX_SIDE = 1024
"""Long side of a panel at full size."""
_GAP, _TITLE, _ROW = 10, 28, 24
_PAPER, _INK, _FAINT = (255, 255, 255), (32, 36, 42), (104, 110, 118)
_FILL = 0.62
"""Share of the class's colour in a panel."""

_DASH = 5
"""Pixels of a dash, and of the gap after it."""

LabelMap = Integer[np.ndarray, "h w"]
Legend = tuple[tuple[tuple[int, int, int], str], ...]
"""RGB and class name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Panels of one size with their titles, the picture first, and the classes in them."""

    panels: tuple[tuple[str, UInt8[np.ndarray, "H W 3"]], ...]
    legend: Legend


@dataclass(frozen=True, kw_only=True)
class PanelBox:
    """A box over a panel."""

    box_xyxy: tuple[float, float, float, float]
    """Pixels of the picture, half-open."""
    category_id: int
    is_wrong: bool = False
    """Drawn with dashes."""


def compare(
    pixels: UInt8[np.ndarray, "h w 3"],
    maps: Sequence[tuple[str, LabelMap]],
    names: Mapping[int, str],
    *,
    side: int = PANEL_SIDE,
    boxes: Sequence[Sequence[PanelBox]] = (),
) -> Comparison:
    """The picture and a panel for each map of class ids (-1 is not shown, 0 grey), `side` long or a little more.

    `boxes` are drawn over the panels of the maps, in their order.
    """
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale > 1:
        scale = float(math.ceil(scale))  # whole pixels stay square
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = np.asarray(Image.fromarray(pixels).resize(size_wh, resample))
    panels = [("picture", picture), *((title, _panel(picture, labels, size_wh)) for title, labels in maps)]
    for place, over in enumerate(boxes, 1):
        panels[place] = (panels[place][0], _with_boxes(panels[place][1], over, (width, height)))
    return Comparison(panels=tuple(panels), legend=_legend(maps, boxes, names))


def _with_boxes(
    panel: UInt8[np.ndarray, "H W 3"], boxes: Sequence[PanelBox], picture_wh: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Outlines in the colours of the classes, dark on their outside so that they show on any ground."""
    picture = Image.fromarray(panel)
    draw = ImageDraw.Draw(picture)
    across, down = panel.shape[1] / picture_wh[0], panel.shape[0] / picture_wh[1]
    for box in boxes:
        x0, y0, x1, y1 = box.box_xyxy
        left, top = round(x0 * across), round(y0 * down)
        right, bottom = max(left, round(x1 * across) - 1), max(top, round(y1 * down) - 1)
        colour = tuple(round(0.55 * part + 0.45 * 255) for part in colour_of(box.category_id))
        if not box.is_wrong:
            draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline=_INK)
            draw.rectangle((left, top, right, bottom), outline=colour, width=2)
            continue
        for start in range(left, right + 1, 2 * _DASH):
            end = min(start + _DASH, right)
            for y in (top, bottom):
                draw.line((start, y, end, y), fill=_INK, width=4)
                draw.line((start, y, end, y), fill=colour, width=2)
        for start in range(top, bottom + 1, 2 * _DASH):
            end = min(start + _DASH, bottom)
            for x in (left, right):
                draw.line((x, start, x, end), fill=_INK, width=4)
                draw.line((x, start, x, end), fill=colour, width=2)
    return np.asarray(picture)


def full_side(pixels: UInt8[np.ndarray, "h w 3"]) -> int:
    """Long side of the panels of a picture at its full size, within reason."""
    return min(max(PANEL_SIDE, *pixels.shape[:2]), _MAX_SIDE)


def draw_sheet(comparison: Comparison) -> Image.Image:
    """The panels in a row with their titles, the legend below them."""
    height, width = comparison.panels[0][1].shape[:2]
    sheet_width = len(comparison.panels) * width + (len(comparison.panels) - 1) * _GAP
    font = ImageFont.load_default(size=14)
    lines = wrap_legend(comparison.legend, sheet_width, font)
    sheet = Image.new("RGB", (sheet_width, _TITLE + height + 8 + _ROW * len(lines)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, (title, panel) in enumerate(comparison.panels):
        left = number * (width + _GAP)
        draw.text((left + 1, _TITLE / 2), title, fill=_FAINT, font=font, anchor="lm")
        sheet.paste(Image.fromarray(panel), (left, _TITLE))
    for number, line in enumerate(lines):
        y = _TITLE + height + 8 + _ROW * number + _ROW // 2
        for x, colour, text in line:
            draw.rounded_rectangle((x, y - 7, x + 14, y + 7), 3, fill=colour)
            draw.text((x + 21, y), text, fill=_INK, font=font, anchor="lm")
    return sheet


def colour_of(category_id: int) -> tuple[int, int, int]:
    """RGB of a class; what has none is grey."""
    return category_colour(category_id) if category_id > 0 else (120, 120, 120)


def _panel(
    picture: UInt8[np.ndarray, "H W 3"], labels: LabelMap, size_wh: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Colours of the classes over a grey picture, with thin outlines between them."""
    shown = np.asarray(Image.fromarray(labels.astype(np.int32)).resize(size_wh, Image.Resampling.NEAREST))
    grey = picture.mean(axis=2, keepdims=True).repeat(3, axis=2)
    panel = picture.astype(np.float64)
    for i in np.unique(shown):
        if i >= 0:
            here = shown == i
            panel[here] = (1 - _FILL) * grey[here] + _FILL * np.array(colour_of(int(i)))
    edge = np.zeros(shown.shape, bool)
    edge[:, 1:] |= shown[:, 1:] != shown[:, :-1]
    edge[1:] |= shown[1:] != shown[:-1]
    panel[edge] *= 0.35
    return panel.round().astype(np.uint8)


def _legend(
    maps: Sequence[tuple[str, LabelMap]], boxes: Sequence[Sequence[PanelBox]], names: Mapping[int, str]
) -> Legend:
    """Classes by the area of the first map, then of the next; those of boxes alone come last."""
    areas: dict[int, list[int]] = {}
    for box in (box for over in boxes for box in over):
        areas.setdefault(box.category_id, [0] * len(maps))
    for place, (_, labels) in enumerate(maps):
        ids, counts = np.unique(labels, return_counts=True)
        for i, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if i >= 0:
                areas.setdefault(i, [0] * len(maps))[place] = count
    order = sorted(areas, key=lambda i: ([-area for area in areas[i]], i))
    return tuple((colour_of(i), names.get(i, "unlabelled" if i == 0 else str(i))) for i in order)
