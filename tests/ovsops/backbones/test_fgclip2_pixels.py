"""Buckets, grids and patches of FG-CLIP 2 by hand and against transformers' processor of SigLIP 2."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.models.siglip2.image_processing_pil_siglip2 import Siglip2ImageProcessorPil

from ovsops.backbones.fgclip2_pixels import (
    BUDGETS,
    cut_patches,
    fit_grid,
    pad_patches,
    patch_budget,
    shared_budget,
)
from ovsops.errors import ShapeError


@pytest.mark.parametrize(
    ("size", "budget"),
    [
        ((1, 1), 128),
        ((128, 256), 128),  # 8 x 16, exactly
        ((144, 240), 256),
        ((256, 256), 256),
        ((256, 272), 576),
        ((384, 384), 576),
        ((384, 400), 784),
        ((448, 448), 784),
        ((448, 464), 1024),
        ((479, 640), 1024),
        ((9000, 9000), 1024),
    ],
)
def test_the_bucket_is_the_smallest_that_holds_the_whole_patches(size: tuple[int, int], budget: int) -> None:
    assert patch_budget(size) == budget


def test_a_shared_bucket_is_the_largest() -> None:
    assert shared_budget([(100, 100), (300, 400), (10, 10)]) == 576
    with pytest.raises(ShapeError, match="no images"):
        shared_budget([])


def test_sizes_that_fit_exactly_stay() -> None:
    assert fit_grid((256, 256), 256) == (16, 16)
    assert fit_grid((512, 512), 1024) == (32, 32)
    assert fit_grid((16, 16), 1) == (1, 1)


@given(
    height=st.integers(1, 3000), width=st.integers(1, 3000), budget=st.sampled_from([1, 7, *BUDGETS, 16384])
)
def test_a_grid_keeps_to_its_budget_and_nearly_to_its_proportions(
    height: int, width: int, budget: int
) -> None:
    rows, columns = fit_grid((height, width), budget)
    assert 1 <= rows * columns <= budget
    scale = (rows * 16 / height, columns * 16 / width)
    if min(rows, columns) > 1:
        assert scale[0] / scale[1] == pytest.approx(1, abs=1 / (min(rows, columns) - 1))


@pytest.mark.parametrize("size", [(97, 131), (17, 400), (1, 1), (256, 256), (333, 500)])
@pytest.mark.parametrize("budget", [128, 576])
def test_patches_are_those_of_the_processor(size: tuple[int, int], budget: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    theirs = Siglip2ImageProcessorPil()(
        [image], max_num_patches=budget, return_tensors="pt", input_data_format="channels_last"
    )
    grid = fit_grid(size, budget)
    ours = pad_patches([cut_patches(image, grid)], [grid], length=budget)
    assert ours.grids.tolist() == theirs["spatial_shapes"].tolist()
    assert ours.is_patch.long().tolist() == theirs["pixel_attention_mask"].tolist()
    torch.testing.assert_close(ours.patches, theirs["pixel_values"].float(), rtol=0, atol=1e-6)


def test_a_patch_is_row_column_colour() -> None:
    image = np.arange(32 * 16 * 3, dtype=np.uint16).reshape(32, 16, 3).astype(np.uint8)
    patches = cut_patches(image, (2, 1))
    expected = (torch.from_numpy(image[16:].copy()).float().flatten() / 255 - 0.5) / 0.5
    torch.testing.assert_close(patches[1], expected)


def test_padding_is_zero_and_told() -> None:
    batch = pad_patches([torch.ones(2, 5), torch.ones(4, 5)], [(1, 2), (2, 2)], length=4)
    assert batch.is_patch.tolist() == [[True, True, False, False], [True] * 4]
    assert batch.patches[0].sum(dim=1).tolist() == [5, 5, 0, 0]
    assert batch.grids.tolist() == [[1, 2], [2, 2]]


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(ShapeError, match="image of 5x0 px"):
        patch_budget((0, 5))
    with pytest.raises(ShapeError, match="at most 0 patches"):
        fit_grid((5, 5), 0)
    with pytest.raises(ShapeError, match="longest of 4 patches, to be filled up to 3"):
        pad_patches([torch.ones(4, 5)], [(2, 2)], length=3)
    with pytest.raises(ShapeError, match="batch of 0 images"):
        pad_patches([], [], length=3)
