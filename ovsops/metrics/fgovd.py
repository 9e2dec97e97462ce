"""Is the right expression of a region told from its hard negatives? Axes: R regions, T texts (first the positive), D.

FG-OVD (Bianchi et al., arXiv:2311.17518): each box has one true expression and up to ten that are wrong in 1 (hard), 2
(medium), 3 (easy) attributes or belong to other objects (trivial). A row is right if the positive scores highest.

The published evaluation (FG-CLIP, commit b1af1cd, eval/fgovd_bbox_roi.py:73-83) takes a tie for right, so a scorer that
says the same of every text has accuracy 1. Here ties are wrong unless `ties="right"` asks for the published figure.

A high figure may owe to the texts alone: print `ovsops.metrics.blind` beside it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64, Num
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.metrics.counts import added, ratio

LEVELS = ("hard", "medium", "easy", "trivial")
"""Of FG-OVD: 1, 2, 3 attributes changed; another object."""
Ties = Literal["wrong", "right"]


@dataclass(frozen=True, kw_only=True, eq=False)
class HardNegativeCounts:
    """Regions by level: all, and those whose positive came first.

    Regions come from the truth: it does not measure whether they would have been found, nor by how much the positive
    wins; rows with fewer negatives are easier and count the same (as published).
    """

    levels: tuple[str, ...]
    counts: Int64[np.ndarray, "2 L"]
    """Rows: regions, right ones."""

    @classmethod
    def zeros(cls, levels: Sequence[str] = LEVELS) -> "HardNegativeCounts":
        """Nothing counted yet."""
        return cls(levels=tuple(levels), counts=np.zeros((2, len(levels)), np.int64))

    def update(self, level: str, is_right: Bool[Tensor, " R"]) -> "HardNegativeCounts":
        """These counts and those of more regions of one level."""
        if level not in self.levels:
            raise ShapeError(f"level {level!r} is not counted here: one of {', '.join(self.levels)}")
        counts = self.counts.copy()
        counts[:, self.levels.index(level)] += [is_right.numel(), int(is_right.sum())]
        return HardNegativeCounts(levels=self.levels, counts=counts)

    def __add__(self, other: "HardNegativeCounts") -> "HardNegativeCounts":
        if self.levels != other.levels:
            raise ShapeError(f"counts of levels {self.levels} and {other.levels}: merge like with like")
        return HardNegativeCounts(
            levels=self.levels, counts=added(self.counts, other.counts, what="hard negative counts")
        )

    def compute(self) -> dict[str, float]:
        """Accuracy by level; nan where a level has no regions."""
        return dict(zip(self.levels, hard_negative_accuracy(self.counts).tolist(), strict=True))


def hard_negative_accuracy(counts: Num[np.ndarray, "*B 2 L"]) -> Float64[np.ndarray, "*B L"]:
    """Share of right regions by level, of any batch of states (for `bootstrap`)."""
    return ratio(counts[..., 1, :], counts[..., 0, :])


def expression_similarity(
    region_features: Float[Tensor, "R D"], text_features: Float[Tensor, "R T D"]
) -> Float64[Tensor, "R T"]:
    """Cosine of each region with its own texts. Equal texts get equal bits; a region of zeros ties with all."""
    regions = F.normalize(region_features.double(), dim=-1)
    texts = F.normalize(text_features.double(), dim=-1)
    # Summed text by text: a matrix product may round equal columns differently, and a tie would be won by chance.
    return (texts * regions[:, None]).sum(dim=-1)


def positive_ranks(
    scores: Float[Tensor, "R T"], num_texts: Int64[Tensor, " R"] | None = None, *, ties: Ties = "wrong"
) -> Int64[Tensor, " R"]:
    """Rank of the positive from 1; negatives that score the same come before it, or after it with `ties="right"`.

    Only the first `num_texts` entries of a row are texts. Raises `ShapeError` for rows without a negative and for
    scores that are not numbers.
    """
    num_texts = torch.full((len(scores),), scores.shape[1]) if num_texts is None else num_texts
    places = torch.arange(scores.shape[1], device=scores.device)
    is_text = places < num_texts.to(scores.device)[:, None]
    wrong = ((num_texts < 2) | (num_texts > scores.shape[1])).nonzero().flatten()
    if len(wrong):
        raise ShapeError(
            f"rows {wrong[:5].tolist()}: 2 to {scores.shape[1]} texts are wanted,"
            " a positive and its negatives; drop them"
        )
    if (scores.isnan() & is_text).any():
        raise ShapeError(
            f"scores of rows {(scores.isnan() & is_text).any(dim=1).nonzero().flatten()[:5].tolist()} are nan:"
            " mend the encoder before it is measured"
        )
    beats = scores >= scores[:, :1] if ties == "wrong" else scores > scores[:, :1]
    return (beats & is_text & (places > 0)).sum(dim=1) + 1


def positive_is_first(
    scores: Float[Tensor, "R T"], num_texts: Int64[Tensor, " R"] | None = None, *, ties: Ties = "wrong"
) -> Bool[Tensor, " R"]:
    """Whether the positive of each region comes first; see `positive_ranks`."""
    return positive_ranks(scores, num_texts, ties=ties) == 1
