"""What becomes a row: instances of boxes, stuff of the map, what only one of both saw. Worked by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from ovsops.annotators.regions import InstancesConfig, cut_regions
from ovsops.backbones.detections import Detections
from ovsops.errors import ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionConfig
from ovsops.masks.rle import mask_to_rle, rle_to_mask


@dataclass(frozen=True, kw_only=True)
class Spec:
    id: int
    kind: str


CLASSES = (Spec(id=3, kind="thing"), Spec(id=8, kind="stuff"))
SIZE = (20, 30)
REGIONS = RegionConfig(min_region_share=0.0)


def class_map() -> ClassMap:
    """A thing on the left, one on the right, stuff below."""
    labels = np.zeros(SIZE, np.uint16)
    labels[2:8, 2:8] = labels[2:8, 20:26] = 1
    labels[12:] = 2
    return ClassMap(labels=labels, scores=np.full(SIZE, 0.5, np.float32))


def boxes(*corners: tuple[float, float, float, float]) -> Detections:
    return Detections(
        boxes_xyxy=torch.tensor(corners).reshape(-1, 4).float(),
        scores=torch.linspace(0.9, 0.5, len(corners)),
        labels=torch.zeros(len(corners), dtype=torch.int64),
    )


def test_without_boxes_the_map_speaks() -> None:
    cut = cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS)
    assert [c.region.category_id for c in cut.regions] == [3, 3, 8]
    assert all(c.box is None for c in cut.regions)


def test_a_box_cuts_its_thing_and_the_other_one_is_counted() -> None:
    cut = cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, boxes=boxes((2, 2, 8, 8)))
    thing, stuff = cut.regions
    assert (thing.region.category_id, thing.box, thing.agreement) == (3, 0, 1.0)
    assert thing.region.area == 36
    assert (stuff.region.category_id, stuff.box, stuff.region.area) == (8, None, 240)
    assert cut.dropped == {"R_NO_BOX": 1}


def test_a_thing_without_a_box_may_stay_and_says_so() -> None:
    keep = InstancesConfig(things_without_box="keep")
    cut = cut_regions(
        class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, boxes=boxes((2, 2, 8, 8)), instances=keep
    )
    alone = [c.region for c in cut.regions if c.box is None and c.region.category_id == 3]
    assert [region.reasons for region in alone] == [("R_NO_BOX",)]
    assert "R_NO_BOX" not in cut.dropped


def test_a_mask_of_its_own_comes_before_the_map() -> None:
    mask = np.zeros(SIZE, bool)
    mask[0:4, 0:4] = True
    cut = cut_regions(
        class_map(),
        CLASSES,
        size_hw=SIZE,
        regions=REGIONS,
        boxes=boxes((0, 0, 4, 4)),
        box_masks=(mask_to_rle(mask),),
    )
    assert (rle_to_mask(cut.regions[0].region.rle) == mask).all()


def test_who_draws_masks_draws_one_for_every_box() -> None:
    mask = mask_to_rle(np.ones(SIZE, bool))
    two = boxes((0, 0, 4, 4), (2, 2, 8, 8))
    for some in ((mask, None), (mask,)):
        with pytest.raises(ShapeError, match="1 of 2 boxes have a mask of their own"):
            cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, boxes=two, box_masks=some)
    none = cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, boxes=two, box_masks=(None, None))
    assert none == cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, boxes=two)


def test_what_overlapping_instances_cover_is_gone_from_the_map() -> None:
    mask = np.zeros(SIZE, bool)
    mask[10:14, 0:10] = True
    cut = cut_regions(
        class_map(),
        CLASSES,
        size_hw=SIZE,
        regions=REGIONS,
        boxes=boxes((0, 10, 10, 14), (0, 10, 9, 14)),
        box_masks=(mask_to_rle(mask), mask_to_rle(mask & (np.arange(30) < 4))),
    )
    [stuff] = [c.region for c in cut.regions if c.region.category_id == 8]
    assert (rle_to_mask(stuff.rle) == (class_map().labels == 2) & ~mask).all()
    assert cut.dropped["R_NO_BOX"] == 2


def test_boxes_alone_are_their_own_masks() -> None:
    cut = cut_regions(None, CLASSES, size_hw=SIZE, regions=REGIONS, boxes=boxes((1, 1, 5, 6)))
    [only] = cut.regions
    assert only.region.area == 20
    assert "R_BOX_MASK" in only.region.reasons


def test_a_second_segmenter_who_sees_nothing_disagrees_with_everything() -> None:
    nothing = np.zeros(SIZE, np.uint16)
    cut = cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, other=nothing)
    assert all(c.agreement_other == 0 for c in cut.regions)
    assert all("R_SEGMENTERS_DISAGREE" in c.region.reasons for c in cut.regions)
    own = cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, other=class_map().labels)
    assert all(c.agreement_other == 1 for c in own.regions)


def test_no_boxes_at_all_leave_stuff() -> None:
    cut = cut_regions(class_map(), CLASSES, size_hw=SIZE, regions=REGIONS, boxes=boxes())
    assert [c.region.category_id for c in cut.regions] == [8]
    assert cut.dropped == {"R_NO_BOX": 2}
