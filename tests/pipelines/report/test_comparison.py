"""Panels of one picture: sizes, titles, colours, the order of the legend."""

import numpy as np
import pytest

from pipelines.report.comparison import PANEL_SIDE, colour_of, compare, draw_sheet, full_side

TRUTH = np.zeros((40, 60), np.int32)
TRUTH[:, 20:] = 2
TRUTH[:5] = -1
LABELS = np.full((40, 60), 3, np.int32)
PIXELS = np.full((40, 60, 3), 100, np.uint8)
NAMES = {2: "cat", 3: "dog"}


def test_panels_are_of_one_size_and_named() -> None:
    shown = compare(PIXELS, [("truth", TRUTH), ("labels", LABELS)], NAMES)
    assert [title for title, _ in shown.panels] == ["picture", "truth", "labels"]
    assert {panel.shape for _, panel in shown.panels} == {(200, 300, 3)}  # times 5, the next whole number
    assert (shown.panels[0][1] == 100).all()
    assert (shown.panels[1][1][10, 290] == 100).all()  # the truth says nothing there


def test_the_legend_goes_by_area_in_the_truth() -> None:
    shown = compare(PIXELS, [("truth", TRUTH), ("labels", LABELS)], NAMES)
    assert shown.legend == ((colour_of(2), "cat"), (colour_of(0), "unlabelled"), (colour_of(3), "dog"))


@pytest.mark.parametrize(("side", "expected"), [(40, PANEL_SIDE), (500, 500), (4000, 1024)])
def test_full_size_is_that_of_the_picture_within_reason(side: int, expected: int) -> None:
    assert full_side(np.zeros((10, side, 3), np.uint8)) == expected


def test_the_sheet_holds_all_panels_and_a_legend() -> None:
    sheet = draw_sheet(compare(PIXELS, [("truth", TRUTH)], NAMES))
    assert sheet.width == 2 * 300 + 10
    assert sheet.height > 200 + 24
    assert sheet.getpixel((150, 100)) == (100, 100, 100)
