"""What the tests of the programs share: one batch again and again, and gradients by name."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ovsops.training.loop import LoopConfig, Program, Progress, train

LOOP = LoopConfig(num_steps=8, learning_rate=1e-3, warmup_steps=2, log_every=1, save_every=100)


class Repeated:
    """A program whose every step is step `at`."""

    def __init__(self, program: Program, *, at: int = 0) -> None:
        self.program, self.at, self.module = program, at, program.module

    def losses(self, step: int) -> Mapping[str, Tensor]:
        return self.program.losses(self.at)

    def after_step(self, step: int) -> None:
        self.program.after_step(step)

    def export(self, folder: Path) -> None:
        self.program.export(folder)


def rows_on_one_batch(program: Program, folder: Path, *, at: int = 0) -> list[Progress]:
    """The curve of eight steps."""
    rows: list[Progress] = []
    train(Repeated(program, at=at), LOOP, folder, on_progress=rows.append)
    return rows


def without_gradient(program: Program, step: int = 0) -> set[str]:
    """Names of trainable parameters that a step does not move."""
    program.module.zero_grad(set_to_none=True)
    program.losses(step)["total"].backward()  # type: ignore[no-untyped-call]
    return {
        name
        for name, p in program.module.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    }


def values(losses: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: float(value.detach()) for name, value in losses.items()}


def losses_whatever_was_drawn_before(
    program: Program, step: int
) -> tuple[dict[str, float], dict[str, float]]:
    """The same step twice, with other steps and other global random states before it."""
    with torch.no_grad():
        torch.manual_seed(1)
        first = values(program.losses(step))
        program.losses(step + 1)
        torch.manual_seed(2)
        return first, values(program.losses(step))
