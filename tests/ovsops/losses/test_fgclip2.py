"""FG-CLIP 2's losses by hand, over several ranks, and where there is too little to learn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, ShapeError, TrainingError
from ovsops.losses.fgclip2 import (
    WEIGHTS,
    FgClip2Batch,
    FgClip2LossConfig,
    FgClip2Scales,
    fgclip2_loss,
)
from ovsops.losses.fgclip2_terms import (
    cmr_loss,
    fgt_loss,
    hard_infonce_loss,
    nearest_texts,
    next_margin,
    tic_loss,
)

SCALES = FgClip2Scales(log_scale=1.0, bias=-2.0, log_scale_regions=2.0, log_scale_hard=2.0)


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def batch_of(num_regions: int = 12, num_hard: int = 3, *, seed: int = 0) -> FgClip2Batch:
    return FgClip2Batch(
        images=unit(4, seed=seed + 1),
        texts_short=unit(4, seed=seed + 2),
        texts_long=unit(4, seed=seed + 3),
        region_images=unit(num_regions, seed=seed + 4),
        region_texts=unit(num_regions, seed=seed + 5),
        hard_images=unit(num_hard, seed=seed + 6),
        hard_texts=unit(num_hard, 11, seed=seed + 7),
    )


@dataclass
class Recorded:
    """Gathers in one process what ranks hand over, call by call; the first pass writes down, the second reads."""

    calls: list[list[Tensor]]
    rank: int
    num_calls: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        if self.num_calls == len(self.calls):
            self.calls.append([])
        parts = self.calls[self.num_calls]
        self.num_calls += 1
        if len(parts) == self.rank:
            parts.append(tensor.detach())
        return torch.cat([*parts[: self.rank], tensor, *parts[self.rank + 1 :]])


def margins_of_ranks(ranks: Sequence[FgClip2Batch]) -> list[Tensor]:
    """The next margin on each rank, when all have handed theirs over."""
    calls: list[list[Tensor]] = []
    for again in range(2):
        found = [
            next_margin(b.hard_images, b.hard_texts, margin=0.7, gather=Recorded(calls, rank))
            for rank, b in enumerate(ranks)
        ]
        assert again or len(calls[0]) == len(ranks)
    return found


def test_the_weights_are_the_published_ones() -> None:
    assert WEIGHTS["paper"] == {
        "global_short": 1,
        "global_long": 1,
        "fgv": 0.1,
        "fgt": 0.5,
        "tic": 0.1,
        "cmr": 0.4,
    }
    assert dict(WEIGHTS["code"]) == pytest.approx(
        {"global_short": 1, "global_long": 1, "fgv": 0.2, "fgt": 1.5, "tic": 0.1, "cmr": 0.2}
        | {"hard_infonce": 0.3}
    )


@pytest.mark.parametrize("weights", ["paper", "code"])
def test_the_total_is_the_weighted_sum_and_reaches_everything(weights: str) -> None:
    batch = batch_of()
    tensors = {name: value.requires_grad_() for name, value in vars(batch).items() if value is not None}
    scales = {name: torch.tensor(value, requires_grad=True) for name, value in vars(SCALES).items()}
    config = FgClip2LossConfig(weights="paper" if weights == "paper" else "code")
    found = fgclip2_loss(batch, FgClip2Scales(**scales), margin=0.3, config=config)
    expected = sum(weight * found.terms[term] for term, weight in WEIGHTS[config.weights].items())
    torch.testing.assert_close(found.total, expected)
    found.total.backward()
    for name, tensor in (tensors | scales).items():
        assert tensor.grad is not None, name
        assert float(tensor.grad.abs().sum()) > 0, name
    assert found.skipped == ()
    assert not found.margin.requires_grad


def test_fgt_and_ranking_by_hand() -> None:
    image, texts = torch.eye(3)[:1], torch.eye(3)[None]  # cosines 1, 0, 0
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert float(fgt_loss(image, texts, logit_scale=2.0)) == pytest.approx(expected)
    assert float(cmr_loss(image, texts, margin=0.5)) == 0
    assert float(cmr_loss(image, texts, margin=1.5)) == pytest.approx(0.5)
    assert float(cmr_loss(image, texts, margin=3.0, logit_scale=2.0)) == pytest.approx(1.0)
    assert float(cmr_loss(image, texts.flip(1), margin=0.0)) == pytest.approx(0.5)  # 1 and 0 ahead of 0


def test_hard_infonce_by_hand() -> None:
    images, texts = torch.eye(4)[:2], torch.eye(4)[[0, 2, 1, 3]].view(2, 2, 4)
    e = math.e
    expected = (-math.log(e / (e + 3)) - math.log(e / (e + 1))) / 2
    assert float(hard_infonce_loss(images, texts, logit_scale=1.0)) == pytest.approx(expected)


def test_alike_texts_are_left_out_not_made_a_cosine_of_zero() -> None:
    texts = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    assert nearest_texts(texts).tolist() == [
        pytest.approx([0.6, -math.inf, -math.inf]),
        pytest.approx([0.6, -math.inf, -math.inf]),
        pytest.approx([0.6, 0.6, -math.inf]),
    ]
    expected = (0.6 + 0.6 + 0.6 + math.log(2)) / 3
    assert float(tic_loss(texts)) == pytest.approx(expected)
    assert float(tic_loss(texts, reduction="sum")) == pytest.approx(3 * expected)
    assert nearest_texts(texts, mode="upstream", num_nearest=3)[0].tolist() == pytest.approx([0.6, 0, 0])


def test_where_all_texts_are_alike_nothing_is_pushed_apart() -> None:
    texts = torch.ones(3, 4, requires_grad=True)
    loss = tic_loss(texts)
    loss.backward()
    assert float(loss.detach()) == 0
    assert texts.grad is not None
    assert not texts.grad.any()


def test_upstream_needs_ten_regions() -> None:
    with pytest.raises(ShapeError, match="9 regions, the published code needs 10"):
        tic_loss(unit(9), mode="upstream")


def test_the_margin_is_how_far_the_true_text_is_ahead() -> None:
    images = torch.eye(3)[:1]
    texts = torch.tensor([[[0.8, 0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]])
    # the last negative scores 0 and does not count
    assert float(next_margin(images, texts, margin=0.0)) == pytest.approx(0.2)
    assert float(next_margin(images, texts, margin=0.0, logit_scale=100.0)) == 10.0
    assert float(next_margin(images, texts[:, [1, 0]], margin=0.5)) == 0.0


def test_the_margin_is_equal_on_all_ranks_and_one_without_regions_takes_part() -> None:
    ranks = [batch_of(num_hard=n, seed=10 * n) for n in (3, 0, 5)]
    own = [float(next_margin(b.hard_images, b.hard_texts, margin=0.7, maximum=None)) for b in ranks[::2]]
    found = margins_of_ranks(ranks)
    assert len({float(margin) for margin in found}) == 1
    assert min(own) - 1e-6 <= float(found[0]) <= max(own) + 1e-6
    empty = batch_of(num_hard=0)
    assert [float(margin) for margin in margins_of_ranks([empty, empty])] == pytest.approx([0.7, 0.7])


def test_too_few_regions_are_an_error_that_names_the_terms() -> None:
    with pytest.raises(TrainingError, match=r"rank 0 has 1 regions and 0 with negatives.*fgv at least 2"):
        fgclip2_loss(batch_of(1, 0), SCALES, margin=0.0)
    with pytest.raises(TrainingError, match="tic at least 10"):
        fgclip2_loss(batch_of(9), SCALES, margin=0.0, config=FgClip2LossConfig(tic_mode="upstream"))


def test_an_error_of_one_rank_is_raised_on_all() -> None:
    def other_has_none(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, torch.zeros_like(tensor)])

    gather = WithOther(other_has_none)
    with pytest.raises(TrainingError, match="rank 1 has 0 regions"):
        fgclip2_loss(batch_of(), SCALES, margin=0.0, gather=gather)


@dataclass(frozen=True)
class WithOther:
    """Rank 0 of two."""

    joined: object
    rank: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        assert callable(self.joined)
        both = self.joined(tensor)
        assert isinstance(both, Tensor)
        return both


@pytest.mark.parametrize("weights", ["paper", "code"])
@pytest.mark.parametrize("counts", [(0, 0), (1, 0), (1, 1), (12, 0), (0, 2)])
def test_a_skipped_term_is_named_zero_and_in_the_graph(weights: str, counts: tuple[int, int]) -> None:
    config = FgClip2LossConfig(weights="paper" if weights == "paper" else "code", too_few="skip")
    batch = batch_of(*counts)
    for value in vars(batch).values():
        if value is not None:
            value.requires_grad_()
    found = fgclip2_loss(batch, SCALES, margin=0.25, config=config)
    regional, hard = {"fgv", "tic"}, {"fgt", "cmr", "hard_infonce"}
    expected = (regional if counts[0] < 2 else set()) | (hard if counts[1] < 1 else set())
    assert set(found.skipped) == expected & set(WEIGHTS[config.weights])
    assert all(float(found.terms[term].detach()) == 0 for term in found.skipped)
    assert math.isfinite(float(found.total.detach()))
    if counts[1] == 0:
        assert float(found.margin) == 0.25
    found.total.backward()
    for name in ("region_images", "region_texts", "hard_images", "hard_texts"):
        assert getattr(batch, name).grad is not None, name


def test_half_precision_loses_nothing() -> None:
    batch = batch_of()
    halves = FgClip2Batch(**{k: v if v is None else v.bfloat16() for k, v in vars(batch).items()})
    whole, half = (fgclip2_loss(b, SCALES, margin=0.1) for b in (batch, halves))
    assert half.skipped == ()
    assert half.total.dtype == torch.float32
    assert float(half.total) == pytest.approx(float(whole.total), rel=0.02)


def test_equal_phrases_are_no_negatives_of_each_other() -> None:
    batch = batch_of(4)
    texts = batch.region_texts[[0, 0, 1, 2]]
    same = torch.tensor([0, 0, 1, 2])
    without = replace(batch, region_texts=texts, region_images=texts)
    with_it = replace(without, region_positives=same[:, None] == same[None])
    ours, theirs = (fgclip2_loss(b, SCALES, margin=0.0).terms["fgv"] for b in (with_it, without))
    assert float(ours) == pytest.approx(
        float(theirs), rel=1e-5
    )  # equal pictures too: half of each is as good
    other = replace(with_it, region_images=batch.region_images)
    assert float(fgclip2_loss(other, SCALES, margin=0.0).terms["fgv"]) != pytest.approx(float(ours), rel=1e-3)


def test_regions_that_are_no_rivals_are_no_negatives_of_each_other() -> None:
    """Four regions, two by two of a label: FGV is that of a batch without the other of the label, on average."""
    batch = batch_of(4)
    labels = torch.tensor([0, 1, 0, 1])
    by_label = fgclip2_loss(replace(batch, region_rivals=labels[:, None] != labels[None]), SCALES, margin=0.0)
    everybody = fgclip2_loss(replace(batch, region_rivals=torch.ones(4, 4).bool()), SCALES, margin=0.0)
    assert float(by_label.terms["fgv"]) < float(everybody.terms["fgv"])
    torch.testing.assert_close(everybody.total, fgclip2_loss(batch, SCALES, margin=0.0).total)


def test_hard_texts_need_a_negative() -> None:
    with pytest.raises(ShapeError, match="at least one negative"):
        fgt_loss(unit(2), unit(2, 1), logit_scale=1.0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"weights": "seed"}, "'seed' are not one of paper, code"), ({"too_few": "pass"}, "too_few 'pass'")],
)
def test_unknown_variants_are_refused(fields: dict[str, str], message: str) -> None:
    config = FgClip2LossConfig()
    for name, value in fields.items():
        object.__setattr__(config, name, value)  # past the checks of types that only tests make
    with pytest.raises(ConfigError, match=message):
        config.__post_init__()
