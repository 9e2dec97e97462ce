"""SAM 3's text side alone: what a prompt is to the detector, one run per corpus.

Axes: P prompts, L tokens of a prompt, D channels of the detector.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import CLIPTextModelWithProjection, Sam3Config
from transformers.models.sam3.modeling_sam3 import Sam3PreTrainedModel

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.tokenizers import ClipTokenizer
from ovsops.errors import ShapeError


@dataclass(frozen=True, kw_only=True)
class Sam3PromptFeatures:
    """Every token of every prompt, projected to the detector's width; the detector attends to them one by one."""

    tokens: Float[Tensor, "P L D"]
    attention_mask: Bool[Tensor, "P L"]
    """False for padding, which must not be attended to."""


class Sam3TextTower(Sam3PreTrainedModel):
    """The parameters of `Sam3Model` that read text, under the same names."""

    base_model_prefix = "detector_model"

    def __init__(self, config: Any) -> None:
        detector = getattr(config, "detector_config", None)
        if detector is not None:  # the published config.json is that of the video model
            config = Sam3Config(**detector) if isinstance(detector, dict) else detector
        super().__init__(config)
        self.text_encoder = CLIPTextModelWithProjection(config.text_config)
        self.text_projection = nn.Linear(
            config.text_config.hidden_size, config.detr_encoder_config.hidden_size
        )
        self.post_init()


class Sam3Text:
    """A frozen SAM 3 text tower and its tokenizer."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        self.model: Any = load_pretrained(Sam3TextTower, checkpoint, device=device, dtype=dtype)
        self.length = int(self.model.config.text_config.max_position_embeddings)
        self.tokenizer = ClipTokenizer(checkpoint.folder, length=self.length)

    def encode(self, prompts: Sequence[str], *, batch_size: int = 64) -> Sam3PromptFeatures:
        """Features of noun phrases, as written: SAM 3 was trained without templates around them.

        A prompt of more tokens than the tower's length is cut, its end token kept, as Meta's tokenizer does
        (facebookresearch/sam3 at 99d02f2); `long_prompts` tells which.
        """
        if not prompts:
            raise ShapeError("no prompts to encode for SAM 3; give one or more noun phrases")
        rows = self.tokenizer(prompts)
        parts = [self._embed(rows[i : i + batch_size]) for i in range(0, len(rows), batch_size)]
        lengths = torch.tensor([len(row) for row in rows])
        return Sam3PromptFeatures(
            tokens=torch.cat(parts), attention_mask=torch.arange(self.length) < lengths[:, None]
        )

    @torch.inference_mode()
    def _embed(self, rows: Sequence[Sequence[int]]) -> Float[Tensor, "P L D"]:
        """Projected hidden states, float32 on the CPU. What pads a row is never attended to."""
        pad = self.tokenizer.eos
        padded = [[*row, *[pad] * (self.length - len(row))] for row in rows]
        ids = torch.tensor(padded, device=self.model.device)
        mask = torch.tensor([[1] * len(row) + [0] * (self.length - len(row)) for row in rows])
        hidden = self.model.text_encoder(input_ids=ids, attention_mask=mask.to(ids.device)).last_hidden_state
        return self.model.text_projection(hidden).float().cpu()
