from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ovsops.errors import ConfigError
from ovsops.masks.refine import PamrConfig, pamr, pamr_weights

SMALL = PamrConfig(num_iterations=3, dilations=(1, 2))


@pytest.fixture
def guides() -> Tensor:
    return 255 * torch.rand(3, 3, 18, 22, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def masks() -> Tensor:
    return torch.rand(3, 5, 18, 22, generator=torch.Generator().manual_seed(2))


def refined_pixel_by_pixel(guide: Tensor, mask: Tensor, dilations: tuple[int, ...]) -> Tensor:
    """One iteration straight from the formulas, in float64: samples, deviation, softmax, weighted mean."""
    reach = max(dilations)
    padded = F.pad(guide[None].double(), (reach,) * 4, mode="replicate")[0]
    padded_mask = F.pad(mask[None, None].double(), (reach,) * 4, mode="replicate")[0, 0]
    refined = torch.zeros_like(mask, dtype=torch.float64)
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            samples = [
                ((dy, dx) != (0, 0), y + reach + d * dy, x + reach + d * dx)
                for d in dilations
                for dy in (-1, 0, 1)
                for dx in (-1, 0, 1)
            ]
            colours = torch.stack([padded[:, b, a] for _, b, a in samples])
            deviation = colours.std(dim=0, unbiased=True)
            around = [(b, a) for is_neighbour, b, a in samples if is_neighbour]
            differences = torch.stack([(guide[:, y, x].double() - padded[:, b, a]).abs() for b, a in around])
            weights = (-differences / (1e-8 + 0.1 * deviation)).mean(dim=1).softmax(dim=0)
            refined[y, x] = (weights * torch.stack([padded_mask[b, a] for b, a in around])).sum()
    return refined


def test_one_iteration_is_the_formula(guides: Tensor, masks: Tensor) -> None:
    config = PamrConfig(num_iterations=1, dilations=(1, 4))
    expected = refined_pixel_by_pixel(guides[0], masks[0, 0], config.dilations)
    torch.testing.assert_close(pamr(guides, masks, config)[0, 0].double(), expected, rtol=0, atol=2e-6)


def test_masks_follow_an_edge_of_the_picture() -> None:
    guide = torch.zeros(1, 3, 16, 16)
    guide[..., 8:] = 255
    blurred = torch.linspace(0, 1, 16).expand(1, 1, 16, 16).contiguous()
    refined = pamr(guide, blurred, PamrConfig())
    step = refined[0, 0, :, 8] - refined[0, 0, :, 7]
    assert step.min() > 0.3 > 1 / 15
    assert refined[0, 0, :, :8].std() < blurred[0, 0, :, :8].std() / 5


def test_weights_are_shares(guides: Tensor) -> None:
    weights = pamr_weights(guides, (1, 2, 4))
    assert weights.shape == (3, 24, 18, 22)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(3, 18, 22))


def test_values_stay_in_range_and_a_flat_mask_stays_flat(guides: Tensor, masks: Tensor) -> None:
    refined = pamr(guides, masks, PamrConfig())
    assert refined.amin() >= masks.amin() - 1e-6
    assert refined.amax() <= masks.amax() + 1e-6
    torch.testing.assert_close(
        pamr(guides, torch.full_like(masks, 0.3), PamrConfig()), torch.full_like(masks, 0.3)
    )


def test_the_scale_of_the_picture_makes_no_difference(guides: Tensor, masks: Tensor) -> None:
    torch.testing.assert_close(
        pamr(guides / 255, masks, SMALL), pamr(guides, masks, SMALL), rtol=0, atol=2e-6
    )


def test_a_batch_is_its_images_one_by_one(guides: Tensor, masks: Tensor) -> None:
    for config in (SMALL, replace(SMALL, winning_margin=0.05), replace(SMALL, resolution_share=0.5)):
        together = pamr(guides, masks, config)
        alone = [pamr(guides[i : i + 1], masks[i : i + 1], config) for i in range(3)]
        torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


def test_class_chunks_change_nothing(guides: Tensor, masks: Tensor) -> None:
    assert torch.equal(pamr(guides, masks, replace(SMALL, class_chunk=2)), pamr(guides, masks, SMALL))


def test_no_image_and_no_iteration(guides: Tensor, masks: Tensor) -> None:
    assert pamr(guides[:0], masks[:0], SMALL).shape == (0, 5, 18, 22)
    assert torch.equal(pamr(guides, masks, replace(SMALL, num_iterations=0)), masks)


@pytest.mark.parametrize("align_corners", [True, False])
def test_masks_are_resized_to_the_guide(guides: Tensor, masks: Tensor, align_corners: bool) -> None:
    config = replace(SMALL, align_corners=align_corners)
    low = masks[..., :6, :7]
    resized = F.interpolate(low, size=(18, 22), mode="bilinear", align_corners=align_corners)
    assert torch.equal(pamr(guides, low, config), pamr(guides, resized, config))


def test_classes_that_never_come_near_are_left_as_they_were(guides: Tensor, masks: Tensor) -> None:
    masks = masks.clone()
    masks[1, 3] -= 2  # in the second image the fourth class wins nowhere
    refined = pamr(guides, masks, replace(SMALL, winning_margin=0.5))
    everything = pamr(guides, masks, SMALL)
    assert torch.equal(refined[1, 3], masks[1, 3])
    is_refined = [(i, c) for i in range(3) for c in range(5) if (i, c) != (1, 3)]
    for i, c in is_refined:
        torch.testing.assert_close(refined[i, c], everything[i, c], rtol=0, atol=1e-6)
    assert torch.equal(refined.argmax(dim=1), everything.argmax(dim=1))


def test_half_resolution_is_near_full_resolution_on_a_smooth_scene() -> None:
    ramp = torch.linspace(0, 1, 64)
    guide = (ramp[:, None] + ramp[None]).expand(1, 3, 64, 64) * 100
    guide = guide + 60 * (torch.arange(64) >= 32)
    masks = torch.stack([ramp.expand(64, 64), 1 - ramp.expand(64, 64)])[None]
    full = pamr(guide, masks, PamrConfig(dilations=(1, 2, 4, 8)))
    half = pamr(guide, masks, PamrConfig(dilations=(1, 2, 4), resolution_share=0.5))
    assert half.shape == full.shape
    assert (half.argmax(dim=1) == full.argmax(dim=1)).float().mean() > 0.97


def test_dtype_of_the_masks_is_kept(guides: Tensor, masks: Tensor) -> None:
    refined = pamr(guides, masks.to(torch.bfloat16), SMALL)
    assert refined.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"num_iterations": -1}, "num_iterations -1"),
        ({"class_chunk": 0}, "class_chunk 0"),
        ({"dilations": ()}, "dilations"),
        ({"dilations": (0, 1)}, "dilations"),
        ({"winning_margin": -0.1}, "winning_margin"),
        ({"resolution_share": 0.0}, "resolution_share"),
    ],
)
def test_config_refuses_nonsense(fields: dict, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        PamrConfig(**fields)
