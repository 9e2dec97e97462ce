"""Agreement of two segmenters: hand-worked maps, and against masks that are drawn."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionConfig, find_regions
from ovsops.masks.rle import rle_to_mask
from ovsops.regions.agreement import AgreementConfig, map_agreement, region_agreements, with_agreement
from tests.ovsops.regions.pictures import CLASSES, drawn

EVERYTHING = RegionConfig(min_region_share=0.0)


def regions_of(class_map: ClassMap):
    return find_regions(class_map, CLASSES, EVERYTHING).regions


def test_shares_and_ious_by_hand() -> None:
    first = drawn("11..2 11..2 .33.2")
    second = drawn("111.2 1.... .11.2 ....."[:17])
    found = region_agreements(regions_of(first), second, CLASSES)
    # Thing 1: 3 of 4 pixels; the second's part of it (touching corners count) has 3 + 1 + 2 = 6.
    assert (found[0].share, found[0].iou) == (3 / 4, 3 / (4 + 6 - 3))
    assert (found[1].share, found[1].iou) == (2 / 3, 2 / 3)  # stuff 2, all of it
    assert (found[2].share, found[2].iou) == (0, 0)  # the second says 1


def test_of_a_thing_only_the_parts_that_touch_it_count_and_of_stuff_all() -> None:
    first, second = drawn("11...2..."), drawn("11.112.22")
    thing, stuff = region_agreements(regions_of(first), second, CLASSES)
    assert (thing.share, thing.iou) == (1, 1)
    assert (stuff.share, stuff.iou) == (1, 1 / 3)


def test_low_agreement_is_a_code_and_the_rest_stays() -> None:
    first, second = drawn("1111 .... 3333"), drawn("111. .... 3...")
    regions = [replace(region, reasons=("R_TINY",)) for region in regions_of(first)]
    found = with_agreement(regions, second, CLASSES)
    assert [region.agreement for region in found] == [0.75, 0.25]
    assert [region.reasons for region in found] == [("R_TINY",), ("R_SEGMENTERS_DISAGREE", "R_TINY")]
    assert [replace(r, agreement=None, reasons=("R_TINY",)) for r in found] == regions
    wider = with_agreement(regions[:1], drawn("1111 1111 1111"), CLASSES, AgreementConfig(measure="share"))
    assert wider[0].agreement == 1.0


def test_whole_maps() -> None:
    assert map_agreement(drawn("11.2"), drawn("1.32")) == 0.5
    assert np.isnan(map_agreement(drawn(".."), drawn("..")))


@given(
    st.tuples(st.integers(1, 8), st.integers(1, 8)).flatmap(
        lambda size: arrays(np.uint16, (2, *size), elements=st.integers(0, 3))
    )
)
def test_equals_drawn_masks(labels: np.ndarray) -> None:
    first, second = (ClassMap(labels=plane, scores=np.ones(plane.shape, np.float32)) for plane in labels)
    regions = regions_of(first)
    places = {c.id: place for place, c in enumerate(CLASSES, start=1)}
    for region, says in zip(regions, region_agreements(regions, second, CLASSES), strict=True):
        label = places[region.category_id]
        mask, same = rle_to_mask(region.rle), second.labels == label
        if CLASSES[label - 1].kind == "thing":
            parts = ndimage.label(same, np.ones((3, 3)))[0]
            same = np.isin(parts, parts[mask & same]) & same
        assert says.share == pytest.approx((mask & same).sum() / mask.sum())
        assert says.iou == pytest.approx((mask & same).sum() / (mask | same).sum())
    assert all(r.agreement == 1 for r in with_agreement(regions, first, CLASSES))


def test_nothing_and_nonsense() -> None:
    assert region_agreements([], drawn("1"), []) == []
    regions = regions_of(drawn("11"))
    with pytest.raises(ShapeError, match="label the same image"):
        region_agreements(regions, drawn("111"), CLASSES)
    with pytest.raises(ShapeError, match="larger vocabulary"):
        region_agreements(regions, drawn("14"), CLASSES)
    with pytest.raises(ShapeError, match=r"categories \[7\]"):
        region_agreements(regions, drawn("11"), CLASSES[1:])
    with pytest.raises(ConfigError, match="min_agreement"):
        AgreementConfig(min_agreement=2.0)
