import pytest
import torch
from torch import Tensor

from ovsops.patches.repair import repair_outliers


def repaired_token_by_token(tokens: Tensor, outliers: Tensor) -> Tensor:
    height, width = outliers.shape
    repaired = tokens.clone()
    for y in range(height):
        for x in range(width):
            around = [
                tokens[b, a]
                for b in range(max(0, y - 1), min(height, y + 2))
                for a in range(max(0, x - 1), min(width, x + 2))
                if not outliers[b, a]
            ]
            if outliers[y, x] and around:
                repaired[y, x] = torch.stack(around).mean(dim=0)
    return repaired


def grid_and_outliers(
    *shape: int, share: float = 0.3, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(*shape, 4, generator=generator, dtype=dtype)
    return tokens, torch.rand(shape, generator=generator) < share


@pytest.mark.parametrize(("height", "width"), [(7, 7), (5, 9), (9, 5), (1, 12), (12, 1), (1, 1), (2, 2)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_outliers_become_the_mean_of_their_good_neighbours(height: int, width: int, share: float) -> None:
    tokens, outliers = grid_and_outliers(height, width, share=share, seed=height, dtype=torch.float64)
    torch.testing.assert_close(repair_outliers(tokens, outliers), repaired_token_by_token(tokens, outliers))


def test_by_hand_on_a_row() -> None:
    """Neighbouring outliers do not count; the one between two outliers has nobody and stays."""
    tokens = torch.tensor([1.0, 2, 90, 91, 92, 6])[None, :, None]
    outliers = torch.tensor([[False, False, True, True, True, False]])
    assert repair_outliers(tokens, outliers).flatten().tolist() == [1, 2, 2, 91, 6, 6]


def test_good_tokens_stay_to_the_bit_and_the_input_is_not_touched() -> None:
    tokens, outliers = grid_and_outliers(2, 6, 8)
    before = tokens.clone()
    repaired = repair_outliers(tokens, outliers)
    assert torch.equal(tokens, before)
    assert torch.equal(repaired[~outliers], tokens[~outliers])
    assert not torch.equal(repaired[outliers], tokens[outliers])


@pytest.mark.parametrize("all_outliers", [False, True])
def test_without_outliers_or_without_good_tokens_nothing_changes(all_outliers: bool) -> None:
    tokens, _ = grid_and_outliers(3, 5, 5)
    outliers = torch.full((3, 5, 5), all_outliers)
    assert torch.equal(repair_outliers(tokens, outliers), tokens)


@pytest.mark.parametrize("leading", [(), (0,), (1,), (7,), (2, 3)])
def test_a_batch_is_its_images_one_by_one(leading: tuple[int, ...]) -> None:
    tokens, outliers = grid_and_outliers(*leading, 4, 6)
    repaired = repair_outliers(tokens, outliers)
    assert repaired.shape == tokens.shape
    flat = zip(
        tokens.reshape(-1, 4, 6, 4), outliers.reshape(-1, 4, 6), repaired.reshape(-1, 4, 6, 4), strict=True
    )
    for image, is_outlier, expected in flat:
        assert torch.equal(repair_outliers(image, is_outlier), expected)


def test_a_broken_outlier_is_healed() -> None:
    tokens = torch.ones(3, 3, 2)
    tokens[1, 1] = torch.nan
    outliers = torch.zeros(3, 3, dtype=torch.bool)
    outliers[1, 1] = True
    assert torch.equal(repair_outliers(tokens, outliers), torch.ones(3, 3, 2))


def test_strides_and_precision_are_those_of_the_tokens() -> None:
    tokens, outliers = grid_and_outliers(2, 6, 8)
    channels_first = tokens.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    torch.testing.assert_close(repair_outliers(channels_first, outliers), repair_outliers(tokens, outliers))
    half = repair_outliers(tokens.bfloat16(), outliers)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), repair_outliers(tokens, outliers), rtol=2e-2, atol=2e-2)
