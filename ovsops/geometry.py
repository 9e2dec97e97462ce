"""Sizes and windows: how an image becomes views, in whole pixels. Axes are (height, width) everywhere."""

from typing import NamedTuple

from ovsops.errors import ShapeError


class Window(NamedTuple):
    """A rectangle of pixels, half-open."""

    y1: int
    x1: int
    y2: int
    x2: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width."""
        return self.y2 - self.y1, self.x2 - self.x1


def resized_size(size_hw: tuple[int, int], *, short_side: int, max_long_side: int) -> tuple[int, int]:
    """Size after resizing to `short_side`, or less where the long side would pass `max_long_side`.

    Sides round to the nearest pixel and never fall under one, so that 1x1 and 20000x100 images have a size
    too.
    """
    height, width = size_hw
    if min(height, width) < 1:
        raise ShapeError(f"an image of {width}x{height} px has no pixels")
    scale = min(short_side / min(height, width), max_long_side / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def slide_windows(size_hw: tuple[int, int], *, window: int, stride: int) -> list[Window]:
    """Windows that cover the image, row by row; the last of a row or column is moved inside, not cut.

    An image smaller than the window on a side is covered by windows as small as that side.
    """
    height, width = size_hw
    ends = [
        [min(i * stride + window, side) for i in range(max(-(-(side - window) // stride), 0) + 1)]
        for side in (height, width)
    ]
    return [Window(max(y2 - window, 0), max(x2 - window, 0), y2, x2) for y2 in ends[0] for x2 in ends[1]]


def scale_window(window: Window, *, from_hw: tuple[int, int], to_hw: tuple[int, int]) -> Window:
    """The same place in another resizing of the image, rounded to whole pixels and at least one wide."""

    def scaled(start: int, end: int, source: int, target: int) -> tuple[int, int]:
        length = max(1, min(target, int((end - start) * target / source + 0.5)))
        first = min(int(start * target / source + 0.5), target - length)
        return first, first + length

    y1, y2 = scaled(window.y1, window.y2, from_hw[0], to_hw[0])
    x1, x2 = scaled(window.x1, window.x2, from_hw[1], to_hw[1])
    return Window(y1, x1, y2, x2)
