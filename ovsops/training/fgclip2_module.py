"""FG-CLIP 2 while it is trained: the model, the learned scalars, the margin, and embeddings of batches.

Axes: B images, P patches, R regions, T texts, L tokens, D channels.
"""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.fgclip2_model import FgClip2Model, TextLength, read_fgclip2_config
from ovsops.backbones.fgclip2_pixels import PatchBatch, cut_patches, fit_grid, pad_patches, patch_budget
from ovsops.backbones.fgclip2_regions import region_means
from ovsops.backbones.miniature import save_half
from ovsops.backbones.tokenizers import SiglipTokenizer
from ovsops.training.fgclip2_labels import label_head


class FgClip2Module(nn.Module):
    """All that a state of the training holds."""

    margin: Tensor

    def __init__(self, model: FgClip2Model, *, region_scale: float, has_label_head: bool = False) -> None:
        super().__init__()
        self.model = model
        self.label_head = label_head(model.width) if has_label_head else None
        self.log_scale_regions = nn.Parameter(torch.tensor(math.log(region_scale)))
        self.log_scale_hard = nn.Parameter(torch.tensor(math.log(region_scale)))
        self.register_buffer("margin", torch.zeros(()))


class FgClip2Embedder:
    """Batches through a model in training, with the pixels, lengths and tokens that the loader uses."""

    def __init__(self, model: FgClip2Model, tokenizer_folder: Path, *, device: str) -> None:
        self.model, self.device, self.folder = model, device, tokenizer_folder
        config: Any = model.config
        self.patch_size = int(config.vision_config.patch_size)
        lengths: tuple[TextLength, ...] = ("short", "box", "long")
        self._tokenizers = {
            length: SiglipTokenizer(tokenizer_folder, length=model.num_tokens(length)) for length in lengths
        }

    def images(
        self, images: Sequence[UInt8[np.ndarray, "_h _w 3"]]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"], PatchBatch]:
        """Pooled images, their patch tokens after the last norm, and the patches that they are of."""
        sizes = [(image.shape[0], image.shape[1]) for image in images]
        budgets = [patch_budget(size, patch_size=self.patch_size) for size in sizes]
        grids = [
            fit_grid(size, budget, patch_size=self.patch_size)
            for size, budget in zip(sizes, budgets, strict=True)
        ]
        cut = [
            cut_patches(i, grid, patch_size=self.patch_size) for i, grid in zip(images, grids, strict=True)
        ]
        batch = pad_patches(cut, grids, length=max(map(len, cut))).to(self.device)
        pooled, tokens = embed_patches(self.model, batch)
        return pooled, tokens, batch

    def regions(
        self,
        tokens: Float[Tensor, "B P D"],
        batch: PatchBatch,
        sizes_hw: Sequence[tuple[int, int]],
        boxes_xyxy: Float[Tensor, "R 4"],
        box_images: Int[Tensor, " R"],
    ) -> Float[Tensor, "R D"]:
        """Means of the dense maps in the boxes, as `FgClip2.region_features` gives them before they are normalised."""
        dense = self.model.dense_features(tokens, batch.is_patch)
        counts = box_images.bincount(minlength=len(sizes_hw)).tolist()
        found = []
        for row, boxes in enumerate(boxes_xyxy.split(counts)):
            rows, columns = batch.grids[row].tolist()
            dense_map = dense[row, : rows * columns].unflatten(0, (rows, columns))
            found.append(region_means(dense_map, boxes, sizes_hw[row])[0])
        return torch.cat(found)

    def texts(self, texts: Sequence[str], *, length: TextLength) -> Float[Tensor, "T D"]:
        """Texts in order; equal ones go through the tower once."""
        if not texts:
            return torch.zeros((0, self.model.width), device=self.device)
        distinct = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(distinct)}
        ids = self._tokenizers[length](distinct).to(self.device)
        embedded = embed_last_token(self.model, ids, length=length)
        return embedded[torch.tensor([place[text] for text in texts], device=self.device)]

    def export(self, folder: Path) -> None:
        """A checkpoint that `FgClip2` loads, float16, with its tokenizer."""
        save_half(self.model, folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, folder / name)


def load_fgclip2_to_train(checkpoint: ResolvedCheckpoint) -> FgClip2Model:
    """The weights of an FG-CLIP 2, float32, with gradients. CheckpointError for anything else."""
    config: Any = read_fgclip2_config(checkpoint)
    model: FgClip2Model = load_pretrained(
        FgClip2Model, checkpoint, device="cpu", dtype=torch.float32, config=config
    )
    return model.requires_grad_(True).train()


def embed_patches(
    model: FgClip2Model, batch: PatchBatch
) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B P D"]]:
    """`FgClip2Model.embed_patches`; where all grids agree, positions are resized once and nothing is masked."""
    if not bool(batch.is_patch.all()) or bool((batch.grids != batch.grids[:1]).any()):
        return model.embed_patches(batch.patches, batch.is_patch, batch.grids)
    vision: Any = model.vision_model
    embeddings = vision.embeddings
    side = embeddings.position_embedding_size
    table = embeddings.position_embedding.weight.reshape(side, side, -1)
    positions = embeddings.resize_positional_embeddings(table, batch.grids[:1].cpu(), batch.patches.shape[1])
    hidden = embeddings.patch_embedding(batch.patches) + positions
    tokens = vision.post_layernorm(
        vision.encoder(inputs_embeds=hidden, attention_mask=None).last_hidden_state
    )
    return vision.head(tokens), tokens


def embed_last_token(
    model: FgClip2Model, ids: Int[Tensor, "T L"], *, length: TextLength
) -> Float[Tensor, "T D"]:
    """`FgClip2Model.embed_texts`, of whose last block only the last token is computed: nothing else is pooled."""
    tower: Any = model.text_model
    if length == "long":
        tokens = tower.embeddings.token_embedding(ids) + model.long_positions()
    else:
        tokens = tower.embeddings(input_ids=ids)
    *before, last = tower.encoder.layers
    for block in before:
        tokens = block(tokens, attention_mask=None)
    attention = last.self_attn
    normed = last.layer_norm1(tokens)
    query, keys, values = (
        projection(part).unflatten(2, (attention.num_heads, -1)).transpose(1, 2)
        for projection, part in (
            (attention.q_proj, normed[:, -1:]),
            (attention.k_proj, normed),
            (attention.v_proj, normed),
        )
    )  # T heads L D
    mixed = F.scaled_dot_product_attention(query, keys, values).transpose(1, 2).flatten(2)
    token = tokens[:, -1:] + attention.out_proj(mixed)
    token = token + last.mlp(last.layer_norm2(token))
    heads = {"short": tower.head, "box": model.boxtext_head, "long": model.longtext_head}
    embedded: Tensor = heads[length](tower.final_layer_norm(token[:, 0]))
    return embedded
