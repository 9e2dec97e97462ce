"""The text-to-DINO projection: linear, then (activation, linear) for every hidden layer (Talk2DINO, ICCV
2025).

Axes: D_t text width, D_d DINO width.
"""

import json
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ovsops.errors import CheckpointError, ConfigError

Activation = Literal["none", "tanh", "relu", "sigmoid"]
METADATA_KEY = "text_to_dino"
"""The one metadata key of a mapper file; one, because safetensors writes several in random order."""
MAPPER_FILE = "mapper.safetensors"

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
}


class TextToDino(nn.Module):
    """psi: pooled text embeddings to DINO's patch space. Input and output are not normalised."""

    def __init__(
        self, text_width: int, dino_width: int, *, num_hidden: int = 1, activation: Activation = "tanh"
    ) -> None:
        super().__init__()
        if num_hidden < 0:
            raise ConfigError(f"mapper: num_hidden is {num_hidden}; it must be 0 or more")
        if activation not in _ACTIVATIONS:
            raise ConfigError(f"mapper: activation {activation!r} is not one of {', '.join(_ACTIVATIONS)}")
        self.activation: Activation = activation
        self.widths = [text_width] + [dino_width] * (num_hidden + 1)
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(self.widths))

    @property
    def text_width(self) -> int:
        """Channels of the text embeddings it takes."""
        return self.widths[0]

    @property
    def dino_width(self) -> int:
        """Channels of the DINO space it maps to."""
        return self.widths[-1]

    def forward(self, text: Float[Tensor, "*B D_t"]) -> Float[Tensor, "*B D_d"]:
        """The activation stands before every hidden linear, so without one there is none at all."""
        activate = _ACTIVATIONS[self.activation]
        mapped = self.linears[0](text.float())
        for linear in self.linears[1:]:
            mapped = linear(activate(mapped))
        return mapped


def save_mapper(mapper: TextToDino, path: Path | str) -> None:
    """Write one safetensors file; the activation stands in its metadata."""
    tensors = {
        name: tensor.detach().float().cpu().contiguous() for name, tensor in mapper.state_dict().items()
    }
    about = json.dumps({"version": 1, "activation": mapper.activation})
    save_file(tensors, str(path), metadata={METADATA_KEY: about})


def load_mapper(path: Path | str) -> TextToDino:
    """Read what `save_mapper` wrote; a folder stands for the `mapper.safetensors` in it."""
    file = Path(path)
    if file.is_dir():
        file = file / MAPPER_FILE
    if not file.is_file():
        raise CheckpointError(
            f"mapper {file}: no such file; convert a published .pth with ovsops.mapper.convert.convert_talk2dino"
        )
    try:
        with safe_open(str(file), framework="pt") as stored:
            metadata = stored.metadata() or {}
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"mapper {file}: not a safetensors file: {error}") from error
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"mapper {file}: its metadata has no {METADATA_KEY}; it is not a text-to-DINO mapper of ours "
            "(convert a published .pth with ovsops.mapper.convert.convert_talk2dino)"
        )
    activation = json.loads(metadata[METADATA_KEY]).get("activation")
    if activation not in get_args(Activation):
        raise CheckpointError(f"mapper {file}: unknown activation {activation!r}")
    return mapper_from_tensors(tensors, activation=activation, where=str(file))


def mapper_from_tensors(tensors: Mapping[str, Tensor], *, activation: Activation, where: str) -> TextToDino:
    """A frozen mapper from `linears.N.{weight,bias}`; the shapes say its widths and depth."""
    num_linears = len(tensors) // 2
    expected = {f"linears.{i}.{part}" for i in range(num_linears) for part in ("weight", "bias")}
    if not tensors or set(tensors) != expected:
        raise CheckpointError(
            f"mapper {where}: its tensors are {sorted(tensors)}; linears.N.weight and linears.N.bias are expected"
        )
    dino_width, text_width = tensors["linears.0.weight"].shape
    mapper = TextToDino(text_width, dino_width, num_hidden=num_linears - 1, activation=activation)
    for name, own in mapper.state_dict().items():
        if tensors[name].shape != own.shape:
            raise CheckpointError(
                f"mapper {where}: {name} has shape {tuple(tensors[name].shape)}, {tuple(own.shape)} is expected"
            )
    mapper.load_state_dict(dict(tensors))
    return mapper.eval().requires_grad_(False)
