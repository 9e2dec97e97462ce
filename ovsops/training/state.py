"""Where a training stands, on disk: weights, optimiser, step and random state, without pickle.

A state is a folder `state-<step>` that appears by one rename; the two newest are kept, so that a kill at any
moment leaves one that is whole.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ovsops.errors import CheckpointError

_PREFIX = "state-"
_KEEP = 2
_RANDOM = "random"
_CUDA = "random.cuda."


@dataclass(frozen=True)
class Standing:
    """How far a training is: steps done, and the terms that wait for the next row of the curve."""

    step: int = 0
    sums: Mapping[str, float] = field(default_factory=dict)
    """Of each term over the steps since the last row."""
    counted: int = 0
    """These steps."""


def save_state(folder: Path, standing: Standing, module: nn.Module, optimizer: torch.optim.Optimizer) -> Path:
    """Write the state after `standing.step` steps; older ones but one are dropped."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{_PREFIX}{standing.step:08d}"
    beside = folder / f".{place.name}.{os.getpid()}"
    for left in folder.glob(f".{_PREFIX}*"):  # of a process that was killed while it wrote
        shutil.rmtree(left)
    beside.mkdir()
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    numbers = optimizer.state_dict()
    for index, slots in numbers["state"].items():
        tensors |= {f"optimizer.{index}.{slot}": torch.as_tensor(value) for slot, value in slots.items()}
    tensors |= random_states()
    save_file(  # copies: tied weights have two names for one place in memory, which safetensors refuses
        {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()},
        beside / "state.safetensors",
    )
    told = {"step": standing.step, "sums": dict(standing.sums), "counted": standing.counted}
    (beside / "state.json").write_text(json.dumps(told))
    shutil.rmtree(place, ignore_errors=True)
    beside.replace(place)
    for old in states(folder)[:-_KEEP]:
        shutil.rmtree(old)
    return place


def load_state(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> Standing:
    """Continue from the newest state in `folder`; no step is done when there is none."""
    found = states(folder)
    if not found:
        return Standing()
    place = found[-1]
    tensors = load_file(place / "state.safetensors")
    own = {
        name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")
    }
    wanted = module.state_dict()
    if own.keys() != wanted.keys() or any(own[n].shape != wanted[n].shape for n in own):
        different = sorted(own.keys() ^ wanted.keys()) or [n for n in own if own[n].shape != wanted[n].shape]
        raise CheckpointError(
            f"training state {place} is of another model ({', '.join(different[:3])} differ); "
            "train into another folder, or delete this one to start over"
        )
    module.load_state_dict(own)
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, slot = name.split(".")
            slots.setdefault(int(index), {})[slot] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": slots, "param_groups": groups})
    restore_random_states(tensors)
    return Standing(**json.loads((place / "state.json").read_text()))


def random_states() -> dict[str, Tensor]:
    """The CPU generator, and those of all CUDA devices once CUDA is in use: `random`, `random.cuda.0`, ..."""
    found = {_RANDOM: torch.get_rng_state()}
    if torch.cuda.is_initialized():
        found |= {f"{_CUDA}{index}": state for index, state in enumerate(torch.cuda.get_rng_state_all())}
    return found


def restore_random_states(tensors: Mapping[str, Tensor]) -> None:
    """Set the generators that this machine has; the state of a device that it lacks is left out.

    A state from before CUDA's were kept has none of them: these generators then stay as they are.
    """
    torch.set_rng_state(tensors[_RANDOM])
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if (state := tensors.get(f"{_CUDA}{index}")) is not None:
            torch.cuda.set_rng_state(state, index)


def states(folder: Path) -> list[Path]:
    """The whole states in `folder`, oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*"))
