"""One loop for every program: step, clip, log, save; killed and started again it goes on to the same curve.

A batch depends on the step alone, never on what was drawn before, so that a resumed run sees the very
batches it would have seen.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from ovsops.errors import ConfigError, TrainingError
from ovsops.training.curve import Curve
from ovsops.training.schedule import warmup_cosine
from ovsops.training.state import load_state, save_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast a program learns."""

    num_steps: int
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    warmup_steps: int = 50
    weight_decay: float = 0.02
    """On matrices only: norms, biases, scales and tables of one dimension do not decay."""
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    save_every: int = 200
    """Steps between states on disk."""
    log_every: int = 25
    """Steps whose terms are averaged into one row of the curve."""
    precision: str = "auto"
    """`float32`, `bfloat16`, or `auto`: bfloat16 autocast on CUDA, float32 elsewhere."""

    def __post_init__(self) -> None:
        if self.num_steps < 1 or self.save_every < 1 or self.log_every < 1:
            raise ConfigError("loop: num_steps, save_every and log_every must be 1 or more")
        if not self.learning_rate > 0:
            raise ConfigError(f"loop.learning_rate is {self.learning_rate}; it must be over 0")
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"loop.precision {self.precision!r}: auto, float32 or bfloat16")


class Program(Protocol):
    """What is learned."""

    @property
    def module(self) -> nn.Module:
        """Everything that a state must keep; parameters that require a gradient are trained."""

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """Terms of this step's batch; `total` is the one that is minimised."""

    def after_step(self, step: int) -> None:
        """What follows an optimiser step: an average of weights, a centre."""

    def export(self, folder: Path) -> None:
        """Write the checkpoint that others load."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One row of the curve."""

    step: int
    num_steps: int
    losses: Mapping[str, float]
    learning_rate: float
    seconds_per_step: float


def train(
    program: Program,
    config: LoopConfig,
    folder: Path,
    *,
    average_gradients: Callable[[nn.Module], None] | None = None,
    is_main: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
) -> int:
    """Train from the newest state in `folder` to the last step; the step it started from.

    Many workers give `average_gradients` (mean over workers, in place); only the main one writes states and
    the curve. Raises TrainingError when the loss is no longer finite: the last state is kept.
    """
    optimizer = make_optimizer(program.module, config)
    start = load_state(folder / "states", program.module, optimizer)
    curve = Curve(folder / "curve.csv", keep_until=start) if is_main else None
    sums: dict[str, float] = {}
    counted, clock = 0, time.perf_counter()
    for step in range(start, config.num_steps):
        rate = config.learning_rate * warmup_cosine(
            step, num_steps=config.num_steps, warmup_steps=config.warmup_steps
        )
        losses = take_step(program, optimizer, step, rate, config, average_gradients)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        counted += 1
        done = step + 1
        if done % config.log_every == 0 or done == config.num_steps:
            now = time.perf_counter()
            row = Progress(
                step=done,
                num_steps=config.num_steps,
                losses={name: value / counted for name, value in sums.items()},
                learning_rate=rate,
                seconds_per_step=(now - clock) / counted,
            )
            if curve is not None:
                curve.add(row.step, {**row.losses, "learning_rate": rate})
            if on_progress is not None:
                on_progress(row)
            sums, counted, clock = {}, 0, now
        if is_main and (done % config.save_every == 0 or done == config.num_steps):
            save_state(folder / "states", done, program.module, optimizer)
    return start


def take_step(
    program: Program,
    optimizer: torch.optim.Optimizer,
    step: int,
    rate: float,
    config: LoopConfig,
    average_gradients: Callable[[nn.Module], None] | None = None,
) -> dict[str, float]:
    """Forward, backward, clip, update; the terms as numbers."""
    for group in optimizer.param_groups:
        group["lr"] = rate
    device = next(program.module.parameters()).device.type
    mixed = config.precision == "bfloat16" or (config.precision == "auto" and device == "cuda")
    with torch.autocast(device, torch.bfloat16, enabled=mixed):
        losses = program.losses(step)
    total = losses["total"]
    if not torch.isfinite(total):
        terms = {name: float(value) for name, value in losses.items()}
        raise TrainingError(
            f"step {step}: the loss is {float(total)} (terms {terms}); lower learning_rate or raise warmup_steps, "
            "then start again: the last state is kept"
        )
    optimizer.zero_grad(set_to_none=True)
    total.backward()  # type: ignore[no-untyped-call]
    if average_gradients is not None:
        average_gradients(program.module)
    trained = [p for p in program.module.parameters() if p.requires_grad]
    torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
    optimizer.step()
    program.after_step(step)
    return {name: float(value.detach()) for name, value in losses.items()}


def make_optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
