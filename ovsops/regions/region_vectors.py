"""FG-CLIP 2's word on regions and phrases as arrays: what negatives are checked with and regions are mined by.

Axes: R regions, T phrases, D channels. Loads torch; the modules that use the arrays do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, UInt8

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.regions.phrase_cache import PhraseCache


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageVectors:
    """One image and its regions."""

    image: Float[np.ndarray, " D"]
    """The whole image, unit length; near its captions and images like it."""
    regions: Float[np.ndarray, "R D"]
    """Unit length; zeros for a box that covers no patch."""


class RegionVectors:
    """A frozen FG-CLIP 2, and the phrases that it met last."""

    def __init__(self, model: FgClip2, *, max_phrases: int = 20_000, max_patches: int | None = None) -> None:
        """`max_phrases` are kept between calls. `max_patches` of every image; None: as many as its size asks for."""
        self.model, self.max_patches = model, max_patches
        self._phrases = PhraseCache(partial(model.encode_text, length="box"), max_phrases=max_phrases)

    @classmethod
    def load(
        cls,
        checkpoint: Checkpoint,
        *,
        device: str = "cpu",
        max_phrases: int = 20_000,
        max_patches: int | None = None,
    ) -> "RegionVectors":
        """From a checkpoint: float32 on a CPU, bfloat16 elsewhere. `CheckpointError` where it cannot be read."""
        dtype = torch.float32 if device == "cpu" else torch.bfloat16
        model = FgClip2(resolve(checkpoint), device=device, dtype=dtype)
        return cls(model, max_phrases=max_phrases, max_patches=max_patches)

    @property
    def width(self) -> int:
        """Channels."""
        return self.model.width

    def of_image(
        self, pixels: UInt8[np.ndarray, "_h _w 3"], boxes_xyxy: Float[np.ndarray, "R 4"]
    ) -> ImageVectors:
        """The image and its boxes, which are in its pixels."""
        (seen,) = self.model.encode_images([pixels], budget=self.max_patches)
        regions, _ = self.model.region_features(seen, torch.from_numpy(boxes_xyxy.astype(np.float32)))
        return ImageVectors(image=seen.pooled.float().cpu().numpy(), regions=regions.float().cpu().numpy())

    def texts(self, phrases: Sequence[str]) -> Float[np.ndarray, "T D"]:
        """Unit vectors of phrases for regions, in order; each is encoded once while it is kept."""
        if not phrases:
            return np.zeros((0, self.width), np.float32)
        return self._phrases(phrases).float().cpu().numpy()
