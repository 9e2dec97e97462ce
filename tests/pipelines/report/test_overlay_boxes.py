"""Boxes of what a detector found: where they are drawn, where their names stand, and what the names say."""

from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from ovsops.masks.rle import mask_to_rle
from pipelines.report.overlay import OverlayConfig, category_colour, draw_overlay
from pipelines.report.overlay_boxes import NamedBox, Rectangle, draw_boxes, placed_names

GREY = np.full((400, 800, 3), 100, np.uint8)
RED = (200, 30, 30)


def instance(bbox: list[float], *, category: int = 5, score: float = 0.75, **fields: Any) -> dict[str, Any]:
    """A row of `instances` whose mask is the box."""
    mask = np.zeros(GREY.shape[:2], bool)
    x, y, width, height = (int(side) for side in bbox)
    mask[y : y + height, x : x + width] = True
    rle = mask_to_rle(mask)
    counts = rle.counts.decode() if isinstance(rle.counts, bytes) else rle.counts
    return {
        "category_id": category,
        "segmentation": {"size": list(rle.size_hw), "counts": counts},
        "area": int(mask.sum()),
        "bbox": bbox,
        "bbox_detector": bbox,
        "score": score,
        "score_calibrated": None,
        **fields,
    }


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, float]]]:
    """Every text that is drawn, and where."""
    texts: list[tuple[str, tuple[float, float]]] = []
    real = ImageDraw.ImageDraw.text

    def note(self: Any, xy: tuple[float, float], text: str, *more: Any, **fields: Any) -> None:
        texts.append((text, xy))
        real(self, xy, text, *more, **fields)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return texts


def box(*box_xyxy: int, text: str = "cat 75%") -> NamedBox:
    assert len(box_xyxy) == 4
    return NamedBox(box_xyxy=box_xyxy, text=text, colour=RED)


def test_the_box_of_the_label_is_outlined_and_its_inside_is_the_mask() -> None:
    sheet = np.asarray(draw_overlay(GREY, [instance([100, 100, 200, 80])], {5: "cat"}))
    colour = category_colour(5)
    for y, x in ((100, 200), (101, 200), (179, 200), (140, 100), (140, 299)):
        assert tuple(sheet[y, x]) == colour, (y, x)
    for y, x in ((99, 200), (180, 200), (140, 99), (140, 300)):
        assert sheet[y, x].max() < 40, "a dark line parts it from the picture"
    blended = 100 + 0.45 * (np.array(colour) - 100)
    assert np.abs(sheet[140, 200] - blended).max() <= 1
    assert (sheet[200:400, 320:800] == 100).all(), "nothing is drawn elsewhere"


def test_the_name_and_how_sure_it_is_stand_above_the_box(written: list[Any]) -> None:
    calibrated = instance([100, 100, 200, 80], score_calibrated=0.412)
    plain = instance([500, 100, 200, 80], score=0.756, category=6)
    draw_overlay(GREY, [calibrated, plain], {5: "cat", 6: "dog"})
    texts = dict(written)
    for text, left in (("cat 41%", 100), ("dog 0.76", 500)):
        x, y = texts[text]
        assert left < x < left + 12
        assert 80 < y < 100
    note = "number at boxes: score, not calibrated; % at boxes: calibrated chance"
    assert note in texts


@pytest.mark.parametrize(("chance", "said"), [(1.0, "cat >99%"), (0.0, "cat <1%"), (0.5, "cat 50%")])
def test_no_chance_is_said_to_be_certain(written: list[Any], chance: float, said: str) -> None:
    draw_overlay(GREY, [instance([100, 100, 200, 80], score_calibrated=chance)], {5: "cat"})
    assert said in dict(written)


def test_what_no_detector_found_is_drawn_as_ever(written: list[Any]) -> None:
    region = instance([100, 100, 200, 80])
    bare = {key: region[key] for key in ("category_id", "segmentation", "area")}
    alone, without = (
        np.asarray(draw_overlay(GREY, [each], {5: "cat"}))
        for each in (bare, region | {"bbox_detector": None})
    )
    assert np.array_equal(alone, without)
    assert {text for text, _ in written} == {"cat  5%"}, "the legend only"
    small = np.full((40, 60, 3), 100, np.uint8)
    assert draw_overlay(small, [], {}).size == (320, 40 + 38), "and no larger than it is"


def test_a_small_picture_with_boxes_is_enlarged_so_that_names_have_room(written: list[Any]) -> None:
    small = GREY[:100, :160]
    mask = np.zeros((100, 160), bool)
    mask[20:60, 40:80] = True
    rle = mask_to_rle(mask)
    row = instance([40, 20, 40, 40]) | {"segmentation": {"size": [100, 160], "counts": rle.counts}}
    sheet = np.asarray(draw_overlay(small, [row], {5: "cat"}, config=OverlayConfig(min_named_side=480)))
    assert sheet.shape[1] == 480
    assert tuple(sheet[60, 180]) == category_colour(5), "three times as large, the box as well"
    assert 40 < dict(written)["cat 0.75"][1] < 60
    assert draw_overlay(small, [row], {}, config=OverlayConfig(max_side=120)).size[0] == 320


def test_only_the_surest_are_named_and_the_rest_are_counted(written: list[Any]) -> None:
    rows = [instance([90 * n, 100, 60, 80], score=n / 10) for n in range(8)]
    sheet = np.asarray(draw_overlay(GREY, rows, {5: "cat"}, config=OverlayConfig(max_names=3)))
    texts = {text for text, _ in written}
    assert {text for text in texts if text.startswith("cat 0")} == {"cat 0.70", "cat 0.60", "cat 0.50"}
    assert any("the 3 surest of 8 boxes are named" in text for text in texts)
    assert tuple(sheet[140, 90]) == category_colour(5), "the others have an outline"


def inside(plate: Rectangle, size_wh: tuple[int, int]) -> bool:
    return 0 <= plate[0] < plate[2] <= size_wh[0] and 0 <= plate[1] < plate[3] <= size_wh[1]


def overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def test_names_stay_in_the_picture() -> None:
    size_wh = (300, 200)
    for corners in ((0, 0, 50, 40), (290, 190, 300, 200), (0, 0, 300, 200), (0, 195, 4, 200)):
        (plate,) = placed_names([box(*corners)], size_wh)
        assert plate is not None
        assert inside(plate, size_wh)
    (whole,) = placed_names([box(0, 0, 300, 200)], size_wh)
    assert whole is not None
    assert whole[:2] == (0, 0), "inside a box that fills the picture"
    narrow = placed_names([box(0, 0, 5, 5, text="a name that is wider than the picture")], (60, 60))
    assert narrow[0] is not None
    assert narrow[0][:2] == (0, 5), "its beginning can be read"


def test_names_of_the_same_place_stand_apart() -> None:
    boxes = [box(100, 80, 160, 120, text=f"name {n}") for n in range(10)]
    plates = placed_names(boxes, (300, 200))
    for place, one in enumerate(plates):
        for other in plates[:place]:
            assert one is not None
            assert other is not None
            assert not overlap(one, other)
    above = plates[0]
    assert above is not None
    assert (above[0], above[3]) == (100, 80), "the first stands right above its box"
    assert placed_names([box(0, 0, 9, 9, text="")], (300, 200)) == [None]


def test_of_boxes_that_overlap_the_first_is_on_top() -> None:
    blue = NamedBox(box_xyxy=(10, 10, 60, 60), text="", colour=(0, 0, 200))
    picture = Image.fromarray(GREY[:100, :100])
    first = np.asarray(draw_boxes(picture, [box(10, 10, 60, 60, text=""), blue]))
    assert tuple(first[10, 30]) == RED
    assert (np.asarray(picture) == 100).all(), "the picture as given stays as it is"
