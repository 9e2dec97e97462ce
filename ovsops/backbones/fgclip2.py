"""FG-CLIP 2 at work: images, regions and three kinds of text in one space.

Axes: B images, H W patch grid, D channels, R regions, T prompts, h w pixels. What leaves is unit length, except the
dense map, whose means are regions.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num, UInt8
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.checkpoint import ResolvedCheckpoint, load_pretrained
from ovsops.backbones.fgclip2_model import FgClip2Model, TextLength, read_fgclip2_config
from ovsops.backbones.fgclip2_pixels import cut_patches, fit_grid, pad_patches, patch_budget
from ovsops.backbones.fgclip2_regions import RegionMode, region_means
from ovsops.backbones.inputs import box_tensor, check_images
from ovsops.backbones.prompts import check_prompts, embed_unique
from ovsops.backbones.tokenizers import SiglipTokenizer
from ovsops.errors import ConfigError

logger = logging.getLogger(__name__)

PATCHES_AT_ONCE = 4096
"""Patches of the images that run together: four images of the largest bucket."""


@dataclass(frozen=True, kw_only=True)
class FgClip2Image:
    """What FG-CLIP 2 sees of one image."""

    pooled: Float[Tensor, " D"]
    """The whole image, unit length; its texts are `short` and `long` ones."""
    dense_map: Float[Tensor, "H W D"]
    """Patches in the space of `box` texts, not normalised."""
    attention: Float[Tensor, "H W"]
    """What the pooled image looks at; sums to 1."""
    image_hw: tuple[int, int]
    """Pixels of the image before it was resized: boxes are given in these."""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.dense_map.shape[0], self.dense_map.shape[1]


class FgClip2:
    """A frozen FG-CLIP 2."""

    def __init__(self, checkpoint: ResolvedCheckpoint, *, device: str, dtype: torch.dtype) -> None:
        config: Any = read_fgclip2_config(checkpoint)
        self.model: FgClip2Model = load_pretrained(
            FgClip2Model, checkpoint, device=device, dtype=dtype, config=config
        )
        self.device = device
        self.patch_size = int(config.vision_config.patch_size)
        self.width = self.model.width
        self.logit_scale = float(self.model.logit_scale.exp())
        """Factor of the cosine of image and text before the sigmoid."""
        self.logit_bias = float(self.model.logit_bias)
        """What is added to it then."""
        lengths: tuple[TextLength, ...] = ("short", "box", "long")
        self._tokenizers = {
            length: SiglipTokenizer(checkpoint.folder, length=self.model.num_tokens(length))
            for length in lengths
        }

    def encode_text(
        self, prompts: Sequence[str], *, length: TextLength, batch_size: int = 64
    ) -> Float[Tensor, "T D"]:
        """Unit vectors of prompts, in order: captions (`short`), phrases for regions (`box`) or long captions.

        Prompts are lower-cased. One that is longer than its kind allows is cut, as in the training, and the number of
        those is logged: `num_tokens` counts before, and `length="long"` takes three times as much. An empty prompt is
        a text without words and has a vector like any other, which says nothing. No prompts at all are a `ShapeError`,
        another `length` is a `ConfigError`.
        """
        self._tell_cuts(prompts, length)

        @torch.inference_mode()
        def embed(some: Sequence[str]) -> Float[Tensor, "T D"]:
            ids = self._tokenizers[length](some).to(self.device)
            return self.model.embed_texts(ids, length=length).float()

        return F.normalize(embed_unique(prompts, embed, batch_size=batch_size).embeddings, dim=-1)

    def num_tokens(self, prompts: Sequence[str]) -> Int[Tensor, " T"]:
        """Tokens of each prompt with its end; up to 64 fit into `short` and `box`, up to 196 into `long`."""
        check_prompts(prompts)
        tokenizer = self._tokenizers["short"].tokenizer
        encodings = tokenizer.encode_batch([p.lower() for p in prompts], add_special_tokens=False)
        return torch.tensor([len(encoding.ids) + 1 for encoding in encodings], dtype=torch.int64)

    def encode_images(
        self,
        images: Sequence[UInt8[np.ndarray, "_h _w 3"]],
        *,
        budget: int | None = None,
        patches_at_once: int = PATCHES_AT_ONCE,
    ) -> list[FgClip2Image]:
        """Each image at a resolution of its own, in order; `budget` asks for that many patches instead.

        Images of one bucket run together, and what is found of one does not depend on the others. No images give none;
        what is no RGB image in 0..255 is a `ShapeError`.
        """
        check_images(images)
        for field, value in (("budget", budget), ("patches_at_once", patches_at_once)):
            if value is not None and (not isinstance(value, Integral) or value < 1):
                raise ConfigError(
                    f"FG-CLIP 2: {field} is {value!r}; give a whole number of patches, 1 or more"
                )
        places_by_budget: dict[int, list[int]] = {}
        for place, image in enumerate(images):
            own = patch_budget(_size_hw(image), patch_size=self.patch_size) if budget is None else budget
            places_by_budget.setdefault(own, []).append(place)
        found: dict[int, FgClip2Image] = {}
        for own, places in sorted(places_by_budget.items()):
            at_once = max(1, patches_at_once // own)
            for first in range(0, len(places), at_once):
                some = places[first : first + at_once]
                found |= dict(zip(some, self._encode_bucket([images[i] for i in some], own), strict=True))
        return [found[place] for place in range(len(images))]

    def region_features(
        self,
        image: FgClip2Image,
        boxes_xyxy: Num[Tensor, "R 4"] | Num[np.ndarray, "R 4"],
        *,
        mode: RegionMode = "corrected",
    ) -> tuple[Float[Tensor, "R D"], Bool[Tensor, " R"]]:
        """Unit vectors of boxes in pixels of the image, to be compared with `box` texts, and which are empty.

        A box without area or beside the image is empty: its vector is zero and its cosine with everything 0, which is
        no evidence; do not name it. `mode` is told in `region_means`. Boxes of another number of columns than four are
        a `ShapeError`; an empty list gives no regions.
        """
        boxes = box_tensor(boxes_xyxy)
        features, is_empty = region_means(image.dense_map, boxes, image.image_hw, mode=mode)
        return F.normalize(features, dim=-1), is_empty

    @torch.inference_mode()
    def _encode_bucket(
        self, images: Sequence[UInt8[np.ndarray, "_h _w 3"]], budget: int
    ) -> list[FgClip2Image]:
        grids = [fit_grid(_size_hw(image), budget, patch_size=self.patch_size) for image in images]
        cut = [
            cut_patches(i, grid, patch_size=self.patch_size) for i, grid in zip(images, grids, strict=True)
        ]
        batch = pad_patches(cut, grids, length=budget).to(self.device)
        pooled, tokens = self.model.embed_patches(batch.patches, batch.is_patch, batch.grids)
        dense = self.model.dense_features(tokens, batch.is_patch).float()
        attention = self.model.pooling_attention(tokens, batch.is_patch).float()
        pooled = F.normalize(pooled.float(), dim=-1)
        return [
            FgClip2Image(
                pooled=pooled[row],
                dense_map=dense[row, : grid[0] * grid[1]].clone().unflatten(0, grid),
                attention=attention[row, : grid[0] * grid[1]].clone().unflatten(0, grid),
                image_hw=_size_hw(images[row]),
            )
            for row, grid in enumerate(grids)
        ]

    def _tell_cuts(self, prompts: Sequence[str], length: TextLength) -> None:
        most = self.model.num_tokens(length)
        num_cut = int((self.num_tokens(prompts) > most).sum())
        if num_cut:
            logger.warning(
                "%d of %d %s prompts have more than %d tokens and are cut",
                num_cut,
                len(prompts),
                length,
                most,
            )


def _size_hw(image: UInt8[np.ndarray, "h w 3"]) -> tuple[int, int]:
    return image.shape[0], image.shape[1]
