"""What the other workers' texts contribute where each worker holds texts of its own number, some of them on all.

Axes: T texts of this rank, M most texts that any rank may hold, A attributes, D channels.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ovsops.losses.gather import Gather

_NOTHING = -99
"""A code that no attribute has: fills the rows up to the most texts."""


class GatherDistinct:
    """Own rows first, then those of other ranks whose text is none of the rows before.

    A plain gather would refuse ranks with different numbers of rows, and would call the translation of a text
    wrong where another rank shows the same text: class names are on all of them.
    """

    rank = 0
    """Own rows come first on every rank."""

    def __init__(self, codes: Int[Tensor, "T A"], *, most: int, gather: Gather) -> None:
        self.most, self.gather = most, gather
        everybody = gather(self._padded(codes, _NOTHING))
        self.is_alone = len(everybody) == most
        is_own = torch.arange(len(everybody), device=codes.device) // most == gather.rank
        is_equal = (everybody[:, None] == everybody[None]).all(dim=-1)
        is_before = torch.ones_like(is_equal).tril(diagonal=-1) & ~is_own
        is_known = (is_equal & (is_own | is_before)).any(dim=1)
        is_text = (everybody != _NOTHING).any(dim=1)
        self.others = (is_text & ~is_known).nonzero().flatten()

    def __call__(self, tensor: Tensor) -> Tensor:
        """The rows of `tensor`, which are one for each code, and the others' that are new."""
        if self.is_alone:
            return tensor  # not a copy: where gradients are added in another order, weights differ in their last bits
        return torch.cat([tensor, self.gather(self._padded(tensor, 0))[self.others]])

    def _padded(
        self, rows: Float[Tensor, "T D"] | Int[Tensor, "T D"], value: int
    ) -> Float[Tensor, "M D"] | Int[Tensor, "M D"]:
        return F.pad(rows, (0, 0, 0, self.most - len(rows)), value=value)
