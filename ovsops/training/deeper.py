"""A deeper vision tower that says what it said before: more room to learn, nothing forgotten."""

import copy
from typing import Any

import torch

from ovsops.backbones.fgclip2_model import FgClip2Model
from ovsops.errors import ConfigError


@torch.no_grad()
def deepen_vision(model: FgClip2Model, *, num_layers: int) -> FgClip2Model:
    """The same model, changed in place: copies of its vision blocks lie evenly between them and add nothing at first.

    A copy's two output layers are zero, so that its block is the identity, and learn from there (block expansion, LLaMA
    Pro, arXiv:2401.02415, section 3.2). ConfigError where the blocks cannot be spread evenly.
    """
    vision: Any = model.vision_model
    config: Any = model.config
    layers = vision.encoder.layers
    added = num_layers - len(layers)
    if added < 0 or (added and len(layers) % added):
        raise ConfigError(
            f"program.vision_layers is {num_layers}: the vision tower has {len(layers)} blocks, between which whole "
            f"groups must lie; expected {len(layers)} or one of "
            f"{', '.join(str(len(layers) + n) for n in range(1, len(layers) + 1) if len(layers) % n == 0)}"
        )
    group = len(layers) // added if added else 0
    for last in range(len(layers) - 1, -1, -group) if added else ():
        block = copy.deepcopy(layers[last])
        for output in (block.self_attn.out_proj, block.mlp.fc2):
            output.weight.zero_()
            output.bias.zero_()
        layers.insert(last + 1, block)
    config.vision_config.num_hidden_layers = num_layers
    return model
