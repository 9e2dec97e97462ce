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

LabelMap = Integer[np.ndarray, "h w"]
Legend = tuple[tuple[tuple[int, int, int], str], ...]
"""RGB and class name."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Panels of one size with their titles, the picture first, and the classes in them."""

    panels: tuple[tuple[str, UInt8[np.ndarray, "H W 3"]], ...]
    legend: Legend


def compare(
    pixels: UInt8[np.ndarray, "h w 3"],
    maps: Sequence[tuple[str, LabelMap]],
    names: Mapping[int, str],
    *,
    side: int = PANEL_SIDE,
) -> Comparison:
    """The picture and a panel for each map of class ids (-1 is not shown, 0 grey), `side` long or a little more."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale > 1:
        scale = float(math.ceil(scale))  # whole pixels stay square
    size_wh = (max(1, round(width * scale)), max(1, round(height * scale)))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    picture = np.asarray(Image.fromarray(pixels).resize(size_wh, resample))
    panels = [("picture", picture), *((title, _panel(picture, labels, size_wh)) for title, labels in maps)]
    return Comparison(panels=tuple(panels), legend=_legend(maps, names))


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


def _legend(maps: Sequence[tuple[str, LabelMap]], names: Mapping[int, str]) -> Legend:
    """Classes by the area of the first map, then of the next."""
    areas: dict[int, list[int]] = {}
    for place, (_, labels) in enumerate(maps):
        ids, counts = np.unique(labels, return_counts=True)
        for i, count in zip(ids.tolist(), counts.tolist(), strict=True):
            if i >= 0:
                areas.setdefault(i, [0] * len(maps))[place] = count
    order = sorted(areas, key=lambda i: ([-area for area in areas[i]], i))
    return tuple((colour_of(i), names.get(i, "unlabelled" if i == 0 else str(i))) for i in order)
