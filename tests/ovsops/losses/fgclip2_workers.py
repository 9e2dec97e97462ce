"""What the two workers of test_fgclip2_ranks run: spawned by name, so it stands in a module of its own."""

import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from ovsops.errors import TrainingError
from ovsops.losses.fgclip2 import FgClip2Batch, FgClip2LossConfig, FgClip2Scales, fgclip2_loss
from ovsops.losses.gather import Gather, all_gather_with_gradient

WIDTH, NUM_HARD = 8, (3, 0)
"""The second rank has no region at all."""


class Head(nn.Module):
    """One projection for images, regions and texts, and the learned scalars; `forward` is the loss."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(WIDTH, WIDTH, generator=generator))
        self.scalars = nn.ParameterList([nn.Parameter(torch.tensor(v)) for v in (1.0, -2.0, 2.0, 2.0)])

    def forward(self, rank: int, gather: Gather, too_few: str) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(10 + rank)
        num_hard = NUM_HARD[rank]

        def some(*shape: int) -> torch.Tensor:
            return F.normalize(torch.randn(*shape, WIDTH, generator=generator) @ self.weight, dim=-1)

        scale, bias, regions, hard = self.scalars
        found = fgclip2_loss(
            FgClip2Batch(
                images=some(4),
                texts_short=some(4),
                texts_long=some(4),
                region_images=some(4 * num_hard),
                region_texts=some(4 * num_hard),
                hard_images=some(num_hard),
                hard_texts=some(num_hard, 11),
            ),
            FgClip2Scales(log_scale=scale, bias=bias, log_scale_regions=regions, log_scale_hard=hard),
            margin=0.7,
            config=FgClip2LossConfig(weights="code", too_few="skip" if too_few == "skip" else "error"),
            gather=gather,
        )
        return found.total, found.margin


def run_worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    gather = all_gather_with_gradient()
    model = DistributedDataParallel(Head())
    total, margin = model(rank, gather, "skip")
    total.backward()
    found = {"total": total.detach(), "margin": margin}
    found |= {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}
    try:
        model(rank, gather, "error")
    except TrainingError as error:
        found["message"] = torch.tensor(list(str(error).encode()), dtype=torch.uint8)
    save_file(found, str(Path(folder) / f"{rank}.safetensors"))
    dist.destroy_process_group()
