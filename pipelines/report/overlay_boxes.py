"""Boxes drawn on a picture, with names that stay readable. Coordinates are pixels of the picture shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

_DARK = (24, 26, 30)
_LIGHT = (236, 238, 241)
_FONT_SIZE = 13
_PAD = 3
"""Pixels of a name's plate around its text."""
_LINES = 5
"""Lines above, below and inside a box that its name may stand on."""
_STRIPE = 5
"""Pixels of the plate's stripe in the box's colour."""

Rectangle = tuple[int, int, int, int]
"""Half-open: left, top, right, bottom."""


@dataclass(frozen=True, kw_only=True)
class NamedBox:
    """A box and what is written at it."""

    box_xyxy: Rectangle
    text: str
    """Empty: the box has an outline only."""
    colour: tuple[int, int, int]


def draw_boxes(picture: Image.Image, boxes: Sequence[NamedBox]) -> Image.Image:
    """The picture with outlines and names; of boxes that overlap the first are on top."""
    drawn = picture.copy()
    draw = ImageDraw.Draw(drawn)
    font = _font()
    for box in reversed(boxes):
        left, top, right, bottom = box.box_xyxy
        draw.rectangle((left - 1, top - 1, right, bottom), outline=_DARK, width=4)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=box.colour, width=2)
    plates = placed_names(boxes, picture.size)
    for box, plate in reversed(list(zip(boxes, plates, strict=True))):
        if plate is None:
            continue
        left, top, right, bottom = plate
        draw.rectangle((left, top, right - 1, bottom - 1), fill=_DARK)
        draw.rectangle((left, top, left + _STRIPE - 1, bottom - 1), fill=box.colour)
        draw.text((left + _STRIPE + _PAD, (top + bottom) / 2), box.text, fill=_LIGHT, font=font, anchor="lm")
    return drawn


def placed_names(boxes: Sequence[NamedBox], size_wh: tuple[int, int]) -> list[Rectangle | None]:
    """Where the name of each box stands, always inside the picture: above the box if no name of a box before it is
    there, else below, inside, beside, or some lines further; above where nothing is free. None for a box without text.
    """
    font = _font()
    taken: list[Rectangle] = []
    plates: list[Rectangle | None] = []
    for box in boxes:
        if not box.text:
            plates.append(None)
            continue
        width = _STRIPE + 2 * _PAD + round(font.getlength(box.text))
        height = _FONT_SIZE + 2 * _PAD
        wanted = _choices(box.box_xyxy, width, height)
        wanted.sort(key=lambda plate: not (plate[1] >= 0 and plate[3] <= size_wh[1]))  # stable: these last
        choices = [_moved_inside(plate, size_wh) for plate in wanted]
        free = [plate for plate in choices if not any(_overlap(plate, other) for other in taken)]
        plates.append((free or choices)[0])
        taken.append((free or choices)[0])
    return plates


def _choices(box: Rectangle, width: int, height: int) -> list[Rectangle]:
    left, top, right, bottom = box
    corners = (
        (left, top - height),
        (left, bottom),
        (right - width, top - height),
        (right - width, bottom),
        (left, top),
        (left, bottom - height),
        (right, top),
        (left - width, top),
    )
    further = [
        (left, y)
        for lines in range(1, _LINES)
        for y in (top - (lines + 1) * height, bottom + lines * height, top + lines * height)
    ]
    return [(x, y, x + width, y + height) for x, y in (*corners, *further)]


def _moved_inside(plate: Rectangle, size_wh: tuple[int, int]) -> Rectangle:
    left, top, right, bottom = plate
    x = min(max(left, 0), max(size_wh[0] - (right - left), 0))
    y = min(max(top, 0), max(size_wh[1] - (bottom - top), 0))
    return x, y, x + right - left, y + bottom - top


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _font() -> Any:
    return ImageFont.load_default(size=_FONT_SIZE)
