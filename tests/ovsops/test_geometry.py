"""Sizes and windows, against the table worked out from the published evaluation code."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import ShapeError
from ovsops.geometry import Window, resized_size, scale_window, slide_windows


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((375, 500), (448, 597)),
        ((500, 333), (673, 448)),
        ((480, 640), (448, 597)),
        ((427, 640), (448, 671)),
        ((1024, 2048), (448, 896)),
        ((500, 4000), (256, 2048)),
        ((1, 1), (448, 448)),
        ((100, 20000), (10, 2048)),
        ((1, 100_000), (1, 2048)),
    ],
)
def test_resized_sizes(size_hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resized_size(size_hw, short_side=448, max_long_side=2048) == expected


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((448, 597), [(0, 0, 448, 448), (0, 149, 448, 597)]),
        ((673, 448), [(0, 0, 448, 448), (224, 0, 672, 448), (225, 0, 673, 448)]),
        ((448, 896), [(0, 0, 448, 448), (0, 224, 448, 672), (0, 448, 448, 896)]),
        ((10, 12), [(0, 0, 10, 12)]),
    ],
)
def test_windows(size_hw: tuple[int, int], expected: list[tuple[int, ...]]) -> None:
    assert slide_windows(size_hw, window=448, stride=224) == [Window(*w) for w in expected]


def test_a_thin_panorama_has_nine_windows() -> None:
    windows = slide_windows((256, 2048), window=448, stride=224)
    assert len(windows) == 9
    assert {w.size_hw for w in windows} == {(256, 448)}


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 80), st.integers(1, 80))
def test_windows_cover_every_pixel_and_stay_inside(height: int, width: int, window: int, stride: int) -> None:
    stride = min(stride, window)
    covered: set[tuple[int, int]] = set()
    for w in slide_windows((height, width), window=window, stride=stride):
        assert 0 <= w.y1 < w.y2 <= height
        assert 0 <= w.x1 < w.x2 <= width
        assert w.size_hw == (min(window, height), min(window, width))
        covered |= {(y, x) for y in (w.y1, w.y2 - 1) for x in range(w.x1, w.x2)}
    rows = {y for y, _ in covered}
    assert {0, height - 1} <= rows
    assert {x for _, x in covered} == set(range(width))


@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 200), st.integers(1, 200))
def test_a_scaled_window_stays_inside_and_the_whole_stays_whole(h: int, w: int, h2: int, w2: int) -> None:
    assert scale_window(Window(0, 0, h, w), from_hw=(h, w), to_hw=(h2, w2)) == (0, 0, h2, w2)
    part = scale_window(Window(h - 1, w - 1, h, w), from_hw=(h, w), to_hw=(h2, w2))
    assert part.y1 < part.y2 <= h2
    assert part.x1 < part.x2 <= w2


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ShapeError, match="0x5 px has no pixels"):
        resized_size((5, 0), short_side=448, max_long_side=2048)
