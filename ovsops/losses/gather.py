"""What the other workers' batches contribute to a loss, with the right gradient.

Axes: W ranks, B pairs of one rank.

The convention, which every loss of this package keeps:

- A loss returns this rank's share: the mean over the rank's own rows, against the columns of all ranks. The
  mean of the shares over ranks is the loss of one process with the whole batch of W * B.
- The gradient that reaches a gathered tensor on each rank is summed over ranks, and each rank keeps the slice
  of its own rows. So the backward pass of rank r yields d(sum of all shares)/d(its rows), W times the
  gradient of the mean.
- DistributedDataParallel then averages parameter gradients over ranks, which takes the W out again: W workers
  with batch B take the same step as one worker with W * B. A mean over rows that gathers nothing, and a
  parameter used on every rank (a scale, a bias), come out right by the same averaging.

Without DistributedDataParallel, average the gradients yourself. Every rank must build the same graph: a
tensor that needs a gradient on one rank and none on another makes the ranks wait for each other for ever.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch import distributed as dist

from ovsops.errors import ConfigError, ShapeError


@runtime_checkable
class Gather(Protocol):
    """Joins a tensor of this rank with those of the others along axis 0, in the order of ranks."""

    @property
    def rank(self) -> int:
        """This rank's rows are `rank * B` to `(rank + 1) * B` of what is gathered."""
        ...

    def __call__(self, tensor: Tensor) -> Tensor:
        """W * B rows from B."""
        ...


@dataclass(frozen=True)
class _OneProcess:
    rank: int = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor


no_gather: Gather = _OneProcess()
"""One process: what is gathered is what it has."""


def all_gather_with_gradient(group: dist.ProcessGroup | None = None) -> Gather:
    """Gather over the ranks of a torch.distributed group (None: all ranks), with gradients to all of them.

    Ranks whose tensors differ in shape or dtype are an error on every rank. That check is one more small
    collective a call: without it a shorter last batch is a hang or silent garbage.
    """
    if not (dist.is_available() and dist.is_initialized()):
        raise ConfigError(
            "gather over ranks: torch.distributed has no process group; call init_process_group first (Ray Train and "
            "torchrun do), or pass no_gather for one process"
        )
    return _AllGather(group)


class _AllGather:
    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.rank = dist.get_rank(group)

    def __call__(self, tensor: Tensor) -> Tensor:
        _check_equal_on_all_ranks(tensor, self.group)
        return _Gathered.apply(tensor, self.group)


class _Gathered(torch.autograd.Function):
    """Forward: all-gather. Backward: sum over ranks, own rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group, ctx.num_rows = group, len(tensor)
        return _gathered(tensor, group)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed, op=dist.ReduceOp.SUM, group=ctx.group)
        return summed.narrow(0, dist.get_rank(ctx.group) * ctx.num_rows, ctx.num_rows), None


def _gathered(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    parts = [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        for _ in range(dist.get_world_size(group))
    ]
    dist.all_gather(parts, tensor.contiguous(), group=group)
    return torch.cat(parts)


MAX_AXES = 6
_DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


def _check_equal_on_all_ranks(tensor: Tensor, group: dist.ProcessGroup | None) -> None:
    if not 1 <= tensor.ndim <= MAX_AXES or tensor.dtype not in _DTYPES:
        raise ShapeError(
            f"gather over ranks: expected 1 to {MAX_AXES} axes and one of {_DTYPES}, got {tuple(tensor.shape)} "
            f"{tensor.dtype}"
        )
    described = [*tensor.shape, *[-1] * (MAX_AXES - tensor.ndim), _DTYPES.index(tensor.dtype)]
    everybody = _gathered(torch.tensor([described], device=tensor.device), group).tolist()
    if any(other != described for other in everybody):
        shapes = [(tuple(n for n in row[:-1] if n >= 0), _DTYPES[row[-1]]) for row in everybody]
        raise ShapeError(
            f"gather over ranks: ranks hold {shapes}; all must hold the same shape and dtype: drop the last, shorter "
            "batch or pad it on every rank"
        )
