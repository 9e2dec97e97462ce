"""One loop for every program: step, clip, log, save; killed and started again it goes on to the same curve.

A batch depends on the step alone, never on what was drawn before, so that a resumed run sees the very
batches it would have seen.
"""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ovsops.errors import ConfigError, TrainingError
from ovsops.training.curve import Curve
from ovsops.training.fields import require_at_least, require_positive, require_share
from ovsops.training.schedule import warmup_cosine
from ovsops.training.state import Standing, load_state, save_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """How long and how fast a program learns."""

    num_steps: int
    learning_rate: float = 1e-3
    """Peak rate of AdamW."""
    warmup_steps: int = 50
    final_share: float = 0.01
    """Share of the peak rate that is left at the last step; 1 keeps the rate constant after the warm-up."""
    weight_decay: float = 0.02
    """On matrices only: norms, biases, scales and tables of one dimension do not decay."""
    betas: tuple[float, float] = (0.9, 0.98)
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm; infinity leaves them as they are."""
    save_every: int = 200
    """Steps between states on disk."""
    log_every: int = 25
    """Steps whose terms are averaged into one row of the curve."""
    precision: str = "auto"
    """`float32`, `bfloat16`, or `auto`: bfloat16 autocast on CUDA, float32 elsewhere."""

    @property
    def may_grow(self) -> bool:
        """Whether a finished training can be lengthened: with a constant rate the first steps of a longer one are the
        same; half a cosine falls to its own last step, so that another length is another training from the start.
        """
        return self.final_share == 1

    def __post_init__(self) -> None:
        require_at_least(self, "loop", 1, "num_steps", "save_every", "log_every")
        require_positive(self, "loop", "learning_rate")
        require_at_least(self, "loop", 0, "warmup_steps", "weight_decay")
        require_share(self, "loop", "final_share")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"loop.betas is {self.betas}; both must lie in [0, 1)")
        if not self.clip_norm > 0:
            raise ConfigError(
                f"loop.clip_norm is {self.clip_norm}; it must be over 0, infinity (.inf) for none"
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"loop.precision {self.precision!r}: auto, float32 or bfloat16")


@runtime_checkable
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


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a call of `train` did."""

    start: int
    """Steps done before."""
    done: int
    """Steps done now; fewer than asked for when it was stopped."""


def train(
    program: Program,
    config: LoopConfig,
    folder: Path,
    *,
    average_gradients: Callable[[nn.Module], None] | None = None,
    average_terms: Callable[[Mapping[str, float]], dict[str, float]] | None = None,
    is_main: bool = True,
    on_progress: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Trained:
    """Train from the newest state in `folder` to the last step, or until `should_stop` says so after a step.

    Many workers give `average_gradients` and `average_terms` (means over workers) and a `should_stop` on which all
    agree; only the main one writes states and the curve. Raises TrainingError when the loss or the norm of its
    gradient is no longer finite: the last state is kept, and nothing of this step is in it.
    """
    optimizer = make_optimizer(program.module, config)
    before = load_state(folder / "states", program.module, optimizer)
    if before.step > config.num_steps:
        raise ConfigError(
            f"loop.num_steps is {config.num_steps}, but {folder} has {before.step} steps behind it, which cannot be "
            f"taken back: set it to {before.step} or more, or choose another output"
        )
    curve = Curve(folder / "curve.csv", keep_until=before.step) if is_main else None
    sums, counted = dict(before.sums), before.counted
    done, timed, clock = before.step, 0, time.perf_counter()
    for step in range(before.step, config.num_steps):
        rate = config.learning_rate * warmup_cosine(
            step,
            num_steps=config.num_steps,
            warmup_steps=config.warmup_steps,
            final_share=config.final_share,
        )
        losses = take_step(program, optimizer, step, rate, config, average_gradients)
        if average_terms is not None:
            losses = average_terms(losses)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + value
        done, counted, timed = step + 1, counted + 1, timed + 1
        is_last = done == config.num_steps or (should_stop is not None and should_stop())
        if done % config.log_every == 0 or done == config.num_steps:
            now = time.perf_counter()
            row = Progress(
                step=done,
                num_steps=config.num_steps,
                losses={name: value / counted for name, value in sums.items()},
                learning_rate=rate,
                seconds_per_step=(now - clock) / timed,
            )
            if curve is not None:
                curve.add(row.step, {**row.losses, "learning_rate": rate})
            if on_progress is not None:
                on_progress(row)
            sums, counted, timed, clock = {}, 0, 0, now
        if is_main and (is_last or done % config.save_every == 0):
            save_state(folder / "states", Standing(done, sums, counted), program.module, optimizer)
        if is_last:
            break
    return Trained(start=before.step, done=done)


def take_step(
    program: Program,
    optimizer: torch.optim.Optimizer,
    step: int,
    rate: float,
    config: LoopConfig,
    average_gradients: Callable[[nn.Module], None] | None = None,
) -> dict[str, float]:
    """Forward, backward, clip, update; the terms as numbers.

    Raises TrainingError where the loss or the norm of the gradient is not finite; the weights are left as they were.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate
    device = next(program.module.parameters()).device.type
    mixed = config.precision == "bfloat16" or (config.precision == "auto" and device == "cuda")
    with torch.autocast(device, torch.bfloat16, enabled=mixed):
        losses = program.losses(step)
    total = losses["total"]
    if not torch.isfinite(total):
        raise _diverged(step, "loss", total, losses)
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    if average_gradients is not None:
        average_gradients(program.module)
    trained = [p for p in program.module.parameters() if p.requires_grad]
    norm = torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
    if not torch.isfinite(
        norm
    ):  # a finite loss can have such a gradient, and one step makes every weight NaN
        raise _diverged(step, "norm of the gradient", norm, losses)
    optimizer.step()
    program.after_step(step)
    return {name: float(value.detach()) for name, value in losses.items()}


def _diverged(step: int, what: str, value: Tensor, losses: Mapping[str, Tensor]) -> TrainingError:
    terms = {name: float(loss.detach()) for name, loss in losses.items()}
    return TrainingError(
        f"step {step}: the {what} is {float(value.detach())} (terms {terms}); weights and states are those from before "
        "this step, and the same recipe comes here again: lower loop.learning_rate or raise loop.warmup_steps. That is "
        "another recipe, which takes another output, or this one after its folder is deleted"
    )


def make_optimizer(module: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices only."""
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas)
