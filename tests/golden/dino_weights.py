"""Weights under DINO's names for its ViT, into the class of transformers."""

import numpy as np
import torch
from torch import Tensor
from transformers import ViTConfig, ViTModel

from tests.golden.table import Arrays

_PLAIN = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
_IN_BLOCK = {
    "attn.proj": "attention.o_proj",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}


def dino_of(weights: Arrays, *, num_heads: int, prefix: str = "vfm.") -> ViTModel:
    """The model whose state dict lies in `weights`; all but the head count follows from the shapes."""
    theirs = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
    width, _, patch, _ = theirs["patch_embed.proj.weight"].shape
    side = round((theirs["pos_embed"].shape[1] - 1) ** 0.5)
    config = ViTConfig(
        hidden_size=width,
        intermediate_size=len(theirs["blocks.0.mlp.fc1.bias"]),
        num_hidden_layers=1 + max(int(name.split(".")[1]) for name in theirs if name.startswith("blocks.")),
        num_attention_heads=num_heads,
        image_size=side * patch,
        patch_size=patch,
        layer_norm_eps=1e-6,
    )
    model = ViTModel(config, add_pooling_layer=False)
    model.load_state_dict(_renamed(theirs), strict=True)
    return model.eval().requires_grad_(False)


def _renamed(theirs: Arrays) -> dict[str, Tensor]:
    ours: dict[str, Tensor] = {}
    for name, array in theirs.items():
        value = torch.from_numpy(np.ascontiguousarray(array))
        if name in _PLAIN:
            ours[_PLAIN[name]] = value
        elif not name.startswith("blocks."):
            stem, kind = name.rsplit(".", 1)
            ours[f"{_PLAIN[stem]}.{kind}"] = value
        else:
            _, block, rest = name.split(".", 2)
            stem, kind = rest.rsplit(".", 1)
            if stem == "attn.qkv":
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    ours[f"layers.{block}.attention.{letter}_proj.{kind}"] = part
            else:
                ours[f"layers.{block}.{_IN_BLOCK[stem]}.{kind}"] = value
    return ours
