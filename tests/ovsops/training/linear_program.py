"""The smallest program: a line through points that a step draws."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ovsops.training.scenes import step_generator


class LinearProgram:
    """Learns y = 3 x0 - x1 + 0.5; `fails_at` makes the loss of one step NaN, `steep_at` its
    gradient infinite while the loss stays what it is.
    """

    def __init__(self, *, fails_at: int | None = None, steep_at: int | None = None, width: int = 2) -> None:
        self.fails_at, self.steep_at = fails_at, steep_at
        self.module = nn.Linear(width, 1)
        with torch.no_grad():
            self.module.weight.fill_(0.25)
            self.module.bias.fill_(0.125)
        self.followed: list[int] = []

    def losses(self, step: int) -> Mapping[str, Tensor]:
        points = torch.randn(16, 2, generator=step_generator(0, step))
        wanted = points @ torch.tensor([3.0, -1.0]) + 0.5
        square = (self.module(points)[:, 0] - wanted).square().mean()
        if step == self.fails_at:
            square = square * torch.nan
        if step == self.steep_at:
            bias = self.module.bias[0]
            square = square + (bias - bias.detach()).sqrt()  # 0, and the slope of a root at 0 is infinite
        return {"square": square, "total": square + 0.0, "place": torch.tensor(float(step))}

    def after_step(self, step: int) -> None:
        self.followed.append(step)

    def export(self, folder: Path) -> None:
        raise AssertionError("the loop exports nothing")
