"""RoIAlign against hand-worked boxes and a plain loop over samples."""

import math

import pytest
import torch
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.masks.roi_align import boxes_to_rois, roi_align


def looped(
    maps: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int, aligned: bool
) -> Tensor:
    """One sample at a time, as the definition says."""
    found = torch.zeros(len(rois), maps.shape[1], *size)
    for k, roi in enumerate(rois):
        x1, y1, x2, y2 = (float(v) * scale - (0.5 if aligned else 0.0) for v in roi[1:])
        high, wide = y2 - y1, x2 - x1
        if not aligned:
            high, wide = max(high, 1.0), max(wide, 1.0)
        bin_h, bin_w = high / size[0], wide / size[1]
        num_y = ratio if ratio > 0 else math.ceil(bin_h)
        num_x = ratio if ratio > 0 else math.ceil(bin_w)
        for p in range(size[0]):
            for q in range(size[1]):
                for i in range(num_y):
                    for j in range(num_x):
                        y = y1 + p * bin_h + (i + 0.5) * bin_h / num_y
                        x = x1 + q * bin_w + (j + 0.5) * bin_w / num_x
                        found[k, :, p, q] += sample(maps[int(roi[0])], y, x)
        found[k] /= max(num_y * num_x, 1)
    return found


def sample(plane: Tensor, y: float, x: float) -> Tensor:
    height, width = plane.shape[1:]
    if y < -1 or y > height or x < -1 or x > width:
        return torch.zeros(plane.shape[0])
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = (1 - (x - x0)) * plane[:, y0, x0] + (x - x0) * plane[:, y0, x1]
    low = (1 - (x - x0)) * plane[:, y1, x0] + (x - x0) * plane[:, y1, x1]
    return (1 - (y - y0)) * top + (y - y0) * low


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("ratio", [-1, 2])
@pytest.mark.parametrize(("size", "scale"), [((1, 1), 1.0), ((3, 2), 0.5)])
def test_equals_a_loop_over_samples(aligned: bool, ratio: int, size: tuple[int, int], scale: float) -> None:
    generator = torch.Generator().manual_seed(3)
    maps = torch.randn(2, 3, 5, 7, generator=generator)
    corners = torch.rand(12, 4, generator=generator) * 14 - 3.3  # inside, outside, inverted
    rois = torch.cat([torch.arange(12)[:, None] % 2, corners], dim=1)
    found = roi_align(maps, rois, size, spatial_scale=scale, sampling_ratio=ratio, aligned=aligned)
    torch.testing.assert_close(found, looped(maps, rois, size, scale, ratio, aligned), rtol=0, atol=2e-6)


def test_a_whole_cell_is_its_value_and_the_whole_map_its_mean() -> None:
    maps = torch.arange(12.0).view(1, 1, 3, 4)
    rois = torch.tensor([[0.0, 2, 1, 3, 2], [0, 0, 0, 4, 3]])
    found = roi_align(maps, rois, (1, 1), aligned=True).flatten()
    assert found.tolist() == [6.0, 5.5]


def test_a_box_without_area_gives_zeros_aligned_and_one_cell_otherwise() -> None:
    maps = torch.ones(1, 1, 4, 4)
    rois = torch.tensor([[0.0, 2, 2, 2, 2], [0, 3, 3, 1, 1]])
    assert roi_align(maps, rois, (1, 1), aligned=True).flatten().tolist() == [0.0, 0.0]
    assert roi_align(maps, rois, (1, 1), aligned=False).flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_maps_of_one_cell_or_one_row(shape: tuple[int, int]) -> None:
    maps = torch.full((1, 2, *shape), 3.0)
    found = roi_align(maps, torch.tensor([[0.0, 0, 0, shape[1], shape[0]]]), (2, 2), aligned=True)
    torch.testing.assert_close(found, torch.full((1, 2, 2, 2), 3.0))


def test_a_box_far_larger_than_the_map_needs_little_memory() -> None:
    maps = torch.ones(1, 1, 4, 4)
    found = roi_align(maps, torch.tensor([[0.0, -500, -500, 504, 504]]), (1, 1), aligned=True)
    assert 0 < float(found) < 1e-3  # 5 x 5 of 1004 x 1004 samples lie on the map


def test_no_boxes_and_other_precisions() -> None:
    maps = torch.ones(1, 2, 4, 4, dtype=torch.bfloat16)
    found = roi_align(maps, boxes_to_rois([torch.zeros(0, 4)]), (3, 3))
    assert found.shape == (0, 2, 3, 3)
    assert found.dtype == torch.bfloat16
    rois = boxes_to_rois([torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[1.0, 1, 3, 3]])])
    assert rois[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("roi", [[1.0, 0, 0, 1, 1], [-1.0, 0, 0, 1, 1], [0, 0, 0, math.nan, 1]])
def test_boxes_that_mean_nothing_are_refused(roi: list[float]) -> None:
    with pytest.raises(ShapeError, match=r"map index 0\.\.0.*all finite"):
        roi_align(torch.ones(1, 1, 2, 2), torch.tensor([roi]), (1, 1))
