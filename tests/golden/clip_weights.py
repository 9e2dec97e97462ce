"""Weights under OpenAI's names for CLIP's vision tower, into the class of transformers."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ovsops.backbones.clip import ClipVision
from tests.golden.table import Arrays

_PLAIN = {
    "class_embedding": "embeddings.class_embedding",
    "conv1.weight": "embeddings.patch_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre": "pre_layrnorm",
    "ln_post": "post_layernorm",
}
_IN_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def clip_vision_of(weights: Arrays, *, num_heads: int, prefix: str = "clip.") -> ClipVision:
    """The tower whose state dict lies in `weights`; all but the head count follows from the shapes."""
    theirs = {name.removeprefix(prefix): array for name, array in weights.items() if name.startswith(prefix)}
    width, _, patch, _ = theirs["conv1.weight"].shape
    side = round((len(theirs["positional_embedding"]) - 1) ** 0.5)
    layers = 1 + max(int(name.split(".")[2]) for name in theirs if name.startswith("transformer.resblocks."))
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=len(theirs["transformer.resblocks.0.mlp.c_fc.bias"]),
        num_hidden_layers=layers,
        num_attention_heads=num_heads,
        image_size=side * patch,
        patch_size=patch,
        projection_dim=theirs["proj"].shape[1],
        hidden_act="quick_gelu",
        layer_norm_eps=1e-5,
    )
    model = CLIPVisionModelWithProjection(config)
    model.load_state_dict(_renamed(theirs), strict=True)
    return ClipVision.of(model)


def _renamed(theirs: Arrays) -> dict[str, Tensor]:
    ours = {}
    for name, array in theirs.items():
        value = torch.from_numpy(np.ascontiguousarray(array))
        if name == "proj":
            ours["visual_projection.weight"] = value.T.contiguous()
        elif name.startswith("transformer.resblocks."):
            block, rest = name.removeprefix("transformer.resblocks.").split(".", 1)
            root = f"vision_model.encoder.layers.{block}"
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for letter, part in zip("qkv", value.chunk(3), strict=True):
                    ours[f"{root}.self_attn.{letter}_proj.{kind}"] = part
            else:
                ours[f"{root}.{_swapped(rest, _IN_BLOCK)}"] = value
        else:
            ours[f"vision_model.{_swapped(name, _PLAIN)}"] = value
    return ours


def _swapped(name: str, table: dict[str, str]) -> str:
    """The name with the longest known beginning exchanged."""
    if name in table:
        return table[name]
    stem, kind = name.rsplit(".", 1)
    return f"{table[stem]}.{kind}"


def load_weights(folder: Path, file: str) -> Arrays:
    """All arrays of the weights file that lies beside a golden file."""
    with np.load(folder / file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
