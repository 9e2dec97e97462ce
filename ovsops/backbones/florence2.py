"""Florence-2 (arXiv:2311.06242) as a captioner of regions: an image and a box in, a phrase out.

Axes: B regions, N image tokens, L tokens of a prompt, D channels, h w pixels. The class is transformers' own. An image
goes through the vision tower once, however many of its regions are described; boxes become tokens `<loc_0>` to
`<loc_999>`, so prompts of one task are equally long and need no padding. Decoding is greedy.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Num, UInt8
from PIL import Image
from torch import Tensor
from transformers import Florence2ForConditionalGeneration, GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained, read_config
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.backbones.tokenizers import read_tokenizer
from ovsops.errors import CheckpointError, ConfigError, ShapeError

Task = Literal["description", "category"]

NUM_BINS = 1000
"""Places of a coordinate."""
STRIDE = 32
"""Pixels of the side of an image token."""

_PROMPTS: dict[Task, str] = {
    "description": "What does the region {} describe?",
    "category": "What is the region {}?",
}
"""What `<REGION_TO_DESCRIPTION>` and `<REGION_TO_CATEGORY>` stand for (transformers, processing_florence2)."""
_MARK = re.compile(r"<[^<>]*>")


@dataclass(frozen=True, kw_only=True)
class Florence2Config:
    """How Florence-2 describes."""

    task: Task = "description"
    image_side: int = 768
    """Pixels of the square that every image is resized to, a multiple of 32; the trained one is 768."""
    max_new_tokens: int = 64
    """A longer description is cut, and says so."""
    regions_per_batch: int = 16
    """Regions of one image that are described together."""
    no_repeat_ngram: int = 3
    """Word pieces in a row that may not come twice; 0 allows all. The published setting is 3."""

    def __post_init__(self) -> None:
        if self.image_side < STRIDE or self.image_side % STRIDE:
            raise ConfigError(f"florence2.image_side is {self.image_side}; a multiple of {STRIDE} is wanted")
        if self.max_new_tokens < 1 or self.regions_per_batch < 1 or self.no_repeat_ngram < 0:
            raise ConfigError(
                f"florence2: max_new_tokens is {self.max_new_tokens}, regions_per_batch {self.regions_per_batch},"
                f" no_repeat_ngram {self.no_repeat_ngram}; at least 1, 1 and 0 are wanted"
            )


@dataclass(frozen=True)
class RegionText:
    """What is said of a region."""

    text: str
    """Without marks of places and tasks; may be empty. A model's words: `clean_caption` them before they are stored."""
    is_cut: bool
    """It reached `max_new_tokens`."""


class Florence2:
    """A frozen Florence-2."""

    def __init__(
        self, checkpoint: ResolvedCheckpoint, config: Florence2Config, *, device: str, dtype: torch.dtype
    ) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.model: Any = load_pretrained(
            Florence2ForConditionalGeneration, checkpoint, device=device, dtype=dtype
        )
        self.tokenizer = read_tokenizer(checkpoint.folder)
        places = [self.tokenizer.token_to_id(f"<loc_{place}>") for place in range(NUM_BINS)]
        if None in places:
            raise CheckpointError(
                f"checkpoint {checkpoint.folder}: the tokenizer has no <loc_{places.index(None)}>; take the folder that"
                " transformers' converter wrote, with its tokens for places"
            )
        text = self.model.config.text_config
        self._bos, self._eos, self._pad = text.bos_token_id, text.eos_token_id, text.pad_token_id
        self._image_token = int(self.model.config.image_token_id)
        # All of it ours: the settings of a checkpoint (beams, an end forced on the last token) would fill what is open.
        self.model.generation_config = GenerationConfig(
            max_new_tokens=config.max_new_tokens,
            num_beams=1,
            do_sample=False,
            no_repeat_ngram_size=config.no_repeat_ngram,
            decoder_start_token_id=text.decoder_start_token_id,
            forced_bos_token_id=self._bos,
            bos_token_id=self._bos,
            eos_token_id=self._eos,
            pad_token_id=self._pad,
        )

    def describe(
        self, image: UInt8[np.ndarray, "h w 3"], boxes_xyxy: Num[Tensor, "R 4"] | Num[np.ndarray, "R 4"]
    ) -> list[RegionText | None]:
        """A phrase for each box, in pixels of the image; None for a box without area or beside the image.

        What is said of a region does not depend on the others.
        """
        boxes = torch.as_tensor(boxes_xyxy, dtype=torch.float64)
        places, is_empty = location_bins(boxes, (image.shape[0], image.shape[1]))
        found: list[RegionText | None] = [None] * len(boxes)
        live = (~is_empty).nonzero()[:, 0].tolist()
        if not live:
            return found
        tokens = self.image_tokens(image)
        for first in range(0, len(live), self.config.regions_per_batch):
            some = live[first : first + self.config.regions_per_batch]
            found_here = self._generate(tokens, self.prompt_ids(places[some]))
            for place, text in zip(some, found_here, strict=True):
                found[place] = text
        return found

    @torch.inference_mode()
    def image_tokens(self, image: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "1 N D"]:
        """The image as the language model reads it; side / 32 squared tokens, and one for all of them."""
        side = self.config.image_side
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None]
        views = normalized(pixels.float().to(self.device), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        return self.model.get_image_features(views.to(self.dtype)).pooler_output

    def prompt_ids(self, places: Int64[Tensor, "B 4"]) -> Int64[Tensor, "B L"]:
        """Token ids of the question about each box, image tokens first."""
        num_tokens = (self.config.image_side // STRIDE) ** 2 + 1
        head = [self._image_token] * num_tokens
        rows = []
        for box in places.tolist():
            marks = "".join(f"<loc_{place}>" for place in box)
            prompt = _PROMPTS[self.config.task].format(marks)
            words = self.tokenizer.encode(prompt, add_special_tokens=False).ids
            rows.append([*head, self._bos, *words, self._eos])
        return torch.tensor(rows, dtype=torch.int64)

    @torch.inference_mode()
    def _generate(self, tokens: Float[Tensor, "1 N D"], ids: Int64[Tensor, "B L"]) -> list[RegionText]:
        ids = ids.to(self.device)
        words = self.model.get_input_embeddings()(ids[:, tokens.shape[1] :])
        embedded = torch.cat([tokens.to(words.dtype).expand(len(ids), -1, -1), words], dim=1)
        mask = torch.ones(embedded.shape[:2], dtype=torch.int64, device=self.device)
        read = self.model.model.language_model.encoder(inputs_embeds=embedded, attention_mask=mask)
        out = self.model.generate(
            encoder_outputs=BaseModelOutput(last_hidden_state=read.last_hidden_state),
            attention_mask=mask,
        )
        return [self._read(row[1:]) for row in out.tolist()]  # the first is the start

    def _read(self, ids: Sequence[int]) -> RegionText:
        is_cut = self._eos not in ids
        said = list(ids) if is_cut else list(ids[: ids.index(self._eos)])
        text = self.tokenizer.decode(said, skip_special_tokens=True)
        return RegionText(" ".join(_MARK.sub(" ", text).split()), is_cut)


def check_florence2(checkpoint: ResolvedCheckpoint) -> None:
    """Raise `CheckpointError` for a folder of another model. Reads config.json, no weights."""
    kind = read_config(checkpoint).get("model_type")
    if kind != "florence2":
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: model_type is {kind!r}, florence2 is expected; take a folder that"
            " transformers' converter wrote"
        )


def location_bins(
    boxes_xyxy: Float[Tensor, "R 4"], image_hw: tuple[int, int]
) -> tuple[Int64[Tensor, "R 4"], Tensor]:
    """Coordinates as places 0 to 999 (the floor of a thousandth of the side), and which boxes show nothing.

    Boxes are cut to the image first. A coordinate that is not finite is a ShapeError.
    """
    if not bool(boxes_xyxy.isfinite().all()):
        raise ShapeError("a box has a coordinate that is not finite; drop it before")
    height, width = image_hw
    sides = boxes_xyxy.new_tensor([width, height, width, height])
    inside = boxes_xyxy.clamp(min=0).minimum(sides)
    is_empty = (inside[:, 2:] <= inside[:, :2]).any(dim=1)
    return (inside * NUM_BINS / sides).floor().clamp(0, NUM_BINS - 1).long(), is_empty
