"""CLIP: the text tower, whose pooled output feeds the mapper as Talk2DINO published it.

Axes: T prompts, L tokens, D channels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import CLIPTextModelWithProjection

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.prompts import embed_unique
from ovsops.backbones.tokenizers import ClipTokenizer
from ovsops.features import TextFeatures


class ClipText:
    """A frozen CLIP text tower with its projection."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_pretrained(CLIPTextModelWithProjection, checkpoint, device=device, dtype=dtype)
        length = int(self.model.config.max_position_embeddings)
        self.tokenizer = ClipTokenizer(checkpoint.folder, length=length)

    def encode(self, prompts: Sequence[str], *, batch_size: int = 256) -> TextFeatures:
        """Projected EOS embeddings, one forward pass per distinct prompt, cut to the longest prompt of its
        batch.

        The tower is causal, so nothing behind the EOS can change what is pooled there: the cut is exact.
        """
        distinct = list(dict.fromkeys(prompts))
        ids = dict(zip(distinct, self.tokenizer(distinct), strict=True))
        return embed_unique(
            prompts,
            lambda batch: self.embed_ids([ids[p] for p in batch]),
            batch_size=batch_size,
            length=lambda p: len(ids[p]),
        )

    @torch.inference_mode()
    def embed_ids(self, rows: Sequence[Sequence[int]], *, pad_to: int = 0) -> Float[Tensor, "T D"]:
        """Projected EOS embeddings of token ids that end with EOS; `pad_to` runs longer than needed, for
        comparison.
        """
        longest = max(pad_to, max(len(row) for row in rows))
        pad = self.tokenizer.eos
        ids = torch.tensor([[*row, *[pad] * (longest - len(row))] for row in rows], device=self.model.device)
        ends = torch.tensor([len(row) - 1 for row in rows], device=self.model.device)
        hidden = self.model.text_model(input_ids=ids).last_hidden_state
        pooled = hidden[torch.arange(len(rows), device=hidden.device), ends]
        return self.model.text_projection(pooled).float()
