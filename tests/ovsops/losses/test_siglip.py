"""SigLIP's loss: hand-worked values, several true pairs, safety."""

import math

import pytest
import torch

from ovsops.errors import ShapeError
from ovsops.losses.siglip import BIAS_INITIAL, LOG_SCALE_INITIAL, equal_pairs, siglip_loss, sigmoid_loss


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def vectors(num: int, seed: int, width: int = 5) -> torch.Tensor:
    return torch.randn(num, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_two_pairs_by_hand() -> None:
    """cos = I, t = 2, b = -1: the diagonal has logit 1, the rest -1, so all four terms are softplus(-1);
    two a row."""
    loss = siglip_loss(torch.eye(2), torch.eye(2), log_scale=math.log(2), bias=-1.0)
    assert loss.item() == pytest.approx(2 * softplus(-1), abs=1e-6)


def test_the_published_start_by_hand() -> None:
    """Right pairs: logit 10 - 10 = 0, log 2 a row. Wrong ones: logit -10, next to nothing."""
    loss = siglip_loss(torch.eye(3), torch.eye(3))
    assert loss.item() == pytest.approx(math.log(2) + 2 * softplus(-10), abs=1e-6)
    assert (math.exp(LOG_SCALE_INITIAL), BIAS_INITIAL) == (pytest.approx(10), -10.0)


def test_it_is_the_element_mean_times_the_batch() -> None:
    similarity = torch.rand(4, 4, generator=torch.Generator().manual_seed(0))
    target = torch.eye(4)
    mean = torch.nn.functional.binary_cross_entropy_with_logits(similarity * 10 - 10, target)
    torch.testing.assert_close(sigmoid_loss(similarity, target.bool()), 4 * mean)


def test_equal_captions_are_true_pairs() -> None:
    """Pairs 0 and 2 share a caption: with t = 1, b = 0 and all cosines 1, true pairs cost softplus(-1), others
    softplus(1); 5 true pairs and 4 others over 3 rows."""
    ones = torch.ones(3, 4)
    positives = equal_pairs(torch.tensor([7, 8, 7]))
    assert positives.tolist() == [[True, False, True], [False, True, False], [True, False, True]]
    loss = siglip_loss(ones, ones, log_scale=0.0, bias=0.0, positives=positives)
    assert loss.item() == pytest.approx((5 * softplus(-1) + 4 * softplus(1)) / 3, abs=1e-6)


def test_the_order_of_pairs_and_the_length_of_vectors_do_not_matter() -> None:
    texts, images = vectors(6, 1), vectors(6, 2)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = siglip_loss(texts, images)
    torch.testing.assert_close(siglip_loss(texts[order], 3 * images[order]), expected)
    assert siglip_loss(texts[order], images).item() != pytest.approx(expected.item(), abs=1e-3)


def test_one_pair_and_no_pair() -> None:
    assert siglip_loss(torch.ones(1, 3), torch.ones(1, 3)).item() == pytest.approx(math.log(2), abs=1e-5)
    with pytest.raises(ShapeError, match="holds no pair"):
        siglip_loss(torch.ones(0, 3), torch.ones(0, 3))


@pytest.mark.parametrize("bias", [-1e4, 1e4])
def test_extreme_logits_stay_finite(bias: float) -> None:
    texts = vectors(3, 3).requires_grad_()
    loss = siglip_loss(texts, vectors(3, 4), log_scale=math.log(1000), bias=bias)
    loss.backward()
    assert loss.isfinite()
    assert texts.grad is not None
    assert texts.grad.isfinite().all()


def test_half_precision_is_summed_in_float32() -> None:
    texts, images = vectors(8, 5).bfloat16(), vectors(8, 6).bfloat16()
    loss = siglip_loss(texts, images)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, siglip_loss(texts.float(), images.float()))


def test_autocast_does_not_reach_the_cosines() -> None:
    texts, images = vectors(8, 5).float(), vectors(8, 6).float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = siglip_loss(texts, images)
    torch.testing.assert_close(inside, siglip_loss(texts, images), rtol=0, atol=0)


def test_gradients_of_vectors_scale_and_bias() -> None:
    log_scale = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    texts, images = vectors(3, 7).requires_grad_(), vectors(3, 8).requires_grad_()
    positives = equal_pairs(torch.tensor([0, 1, 0]))
    assert torch.autograd.gradcheck(
        lambda t, i, s, b: siglip_loss(t, i, log_scale=s, bias=b, positives=positives),
        (texts, images, log_scale, bias),
    )
