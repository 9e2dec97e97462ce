"""Boxes without a detector: hand-worked maps, merging, caps, and one plane at a time."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from ovsops.backbones.detections import Detections
from ovsops.errors import ConfigError, ShapeError
from ovsops.masks.class_map import ClassMap
from ovsops.regions import proposals as module
from ovsops.regions.proposals import ProposalConfig, proposals_from_class_map, proposals_from_scores
from tests.ovsops.regions.pictures import CLASSES, drawn

SMALL: dict[str, Any] = {"min_pixels": 1, "min_share": 0.0, "merge_iou": None}


def listed(found: Detections) -> list[tuple[list[float], float, int]]:
    scores = [round(score, 4) for score in found.scores.tolist()]
    return list(zip(found.boxes_xyxy.tolist(), scores, found.labels.tolist(), strict=True))


def plane(picture: str) -> torch.Tensor:
    """Digits are tenths, dots nothing."""
    return torch.tensor([[0.0 if c == "." else int(c) / 10 for c in row] for row in picture.split()])


def test_things_of_a_class_map_are_boxes_and_stuff_is_not() -> None:
    scores = np.array([[0.9, 0.7, 0, 0.2, 0.4], [0.8, 0, 0.5, 0.4, 0.4], [0.5, 0.5, 0, 0, 0.5]])
    found = proposals_from_class_map(drawn("11.33 1.233 22..1", scores), CLASSES, ProposalConfig(**SMALL))
    assert listed(found) == [([0, 0, 2, 2], 0.8, 0), ([4, 2, 5, 3], 0.5, 0), ([3, 0, 5, 2], 0.35, 2)]
    best = proposals_from_class_map(
        drawn("11", np.array([[0.25, 0.75]])), CLASSES, ProposalConfig(score="max", **SMALL)
    )
    assert listed(best) == [([0, 0, 2, 1], 0.75, 0)]


def test_maps_above_the_threshold_are_boxes() -> None:
    maps = torch.stack([plane("99..5 9...4"), plane("..... ..6.."), plane("4.... .....")])
    found = proposals_from_scores(maps, (2, 5), ProposalConfig(**SMALL))
    assert listed(found) == [([0, 0, 2, 2], 0.9, 0), ([2, 1, 3, 2], 0.6, 1), ([4, 0, 5, 1], 0.5, 0)]
    relative = proposals_from_scores(maps, (2, 5), ProposalConfig(relative_threshold=0.6, **SMALL))
    assert listed(relative) == [([0, 0, 2, 2], 0.9, 0), ([2, 1, 3, 2], 0.6, 1)]


def test_maps_are_enlarged_with_pixel_centres() -> None:
    found = proposals_from_scores(plane(".9 .9")[None], (4, 8), ProposalConfig(**SMALL))
    assert found.boxes_xyxy.tolist() == [
        [4, 0, 8, 4]
    ]  # columns at 0, .11, .34, .56, .79, .9: from the fifth on


def test_small_regions_are_none() -> None:
    maps = plane("99..9 .....")[None]
    for fields in ({"min_pixels": 2}, {"min_share": 0.15}):
        found = proposals_from_scores(maps, (2, 5), ProposalConfig(**(SMALL | fields)))
        assert found.boxes_xyxy.tolist() == [[0, 0, 2, 1]]


RING = plane("9999999 9.....9 9.888.9 9.888.9 9.888.9 9.....9 9999999")


def test_a_region_within_anothers_box_is_merged_when_it_fills_enough_of_it() -> None:
    apart = proposals_from_scores(RING[None], (7, 7), ProposalConfig(**(SMALL | {"merge_iou": 0.2})))
    assert listed(apart) == [([0, 0, 7, 7], 0.9, 0), ([2, 2, 5, 5], 0.8, 0)]  # IoU 9 / 49
    joined = proposals_from_scores(RING[None], (7, 7), ProposalConfig(**(SMALL | {"merge_iou": 0.18})))
    assert listed(joined) == [([0, 0, 7, 7], 0.9, 0)]
    names = proposals_from_scores(RING[None].repeat(2, 1, 1), (7, 7), ProposalConfig(**SMALL))
    assert len(names) == 4
    one_name = proposals_from_scores(
        RING[None].repeat(2, 1, 1), (7, 7), ProposalConfig(across_iou=0.5, **SMALL)
    )
    assert listed(one_name) == [([0, 0, 7, 7], 0.9, 0), ([2, 2, 5, 5], 0.8, 0)]


def test_caps_keep_the_best() -> None:
    maps = torch.stack([plane("9.8.7.6"), plane(".5...6.")])
    some = proposals_from_scores(maps, (1, 7), ProposalConfig(max_per_class=2, **SMALL))
    assert [(round(s, 1), label) for _, s, label in listed(some)] == [(0.9, 0), (0.8, 0), (0.6, 1), (0.5, 1)]
    assert len(proposals_from_scores(maps, (1, 7), ProposalConfig(max_proposals=3, **SMALL))) == 3


def test_nothing_and_nonsense() -> None:
    assert len(proposals_from_scores(torch.zeros(0, 4, 4), (8, 8))) == 0
    assert len(proposals_from_scores(torch.zeros(3, 4, 4), (8, 8))) == 0
    assert (
        len(
            proposals_from_scores(
                torch.zeros(3, 4, 4), (8, 8), ProposalConfig(threshold=0.0, max_proposals=2)
            )
        )
        == 2
    )
    assert len(proposals_from_class_map(drawn("..."), [])) == 0
    assert len(proposals_from_class_map(drawn("2222"), CLASSES, ProposalConfig(**SMALL))) == 0
    with pytest.raises(ShapeError, match="larger vocabulary"):
        proposals_from_class_map(drawn("1"), [])
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ShapeError, match="expected 0 to 1"):
            proposals_from_scores(torch.full((1, 2, 2), wrong), (2, 2))
    with pytest.raises(ConfigError, match="merge_iou"):
        ProposalConfig(merge_iou=1.5)
    with pytest.raises(ConfigError, match="max_proposals 0"):
        ProposalConfig(max_proposals=0)


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)).flatmap(
        lambda size: arrays(np.float32, size, elements=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
    ),
    st.sampled_from([4, 8]),
)
def test_boxes_are_those_of_scipys_parts(maps: np.ndarray, connectivity: Any) -> None:
    config = ProposalConfig(connectivity=connectivity, **SMALL)
    found = proposals_from_scores(torch.from_numpy(maps), maps.shape[1:], config)
    structure = ndimage.generate_binary_structure(2, 2 if connectivity == 8 else 1)
    expected = []
    for label, values in enumerate(maps):
        parts = ndimage.label(values >= 0.5, structure)[0]
        for part, (rows, columns) in enumerate(ndimage.find_objects(parts), start=1):
            score = float(values[parts == part].mean(dtype=np.float64))
            expected.append((label, columns.start, rows.start, columns.stop, rows.stop, score))
    assert sorted((label, *box, score) for box, score, label in listed(found)) == [
        pytest.approx(part, abs=1e-3) for part in sorted(expected)
    ]
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)


def test_one_plane_of_the_image_at_a_time_and_only_where_a_class_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes: list[int] = []
    plain = module.F.interpolate

    def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
        enlarged = plain(*args, **kwargs)
        sizes.append(enlarged.numel())
        return enlarged

    monkeypatch.setattr(module.F, "interpolate", counted)
    maps = torch.zeros(171, 16, 16)
    maps[[3, 90], 4:8, 4:8] = 0.9
    found = proposals_from_scores(maps, (200, 300))
    assert sizes == [200 * 300] * 2
    assert found.labels.tolist() == [3, 90]


def test_a_class_map_and_its_own_planes_give_the_same_boxes() -> None:
    labels = np.random.default_rng(0).integers(0, 4, (12, 15)).astype(np.uint16)
    class_map = ClassMap(labels=labels, scores=np.full(labels.shape, 0.75, np.float32))
    planes = torch.from_numpy(np.stack([(labels == place) * 0.75 for place in (1, 2, 3)])).float()
    planes[1] = 0  # stuff
    config = ProposalConfig(**SMALL)
    from_map = proposals_from_class_map(class_map, CLASSES, config)
    assert listed(from_map) == listed(proposals_from_scores(planes, labels.shape, config))
