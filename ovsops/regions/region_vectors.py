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

    def of_images(
        self,
        images: Sequence[UInt8[np.ndarray, "_ _ 3"]],
        boxes_xyxy: Sequence[Float[np.ndarray, "_ 4"]],
    ) -> list[ImageVectors]:
        """Images, each with its boxes in its pixels. They run together; none depends on the others."""
        found = []
        seen = self.model.encode_images(images, budget=self.max_patches)
        for image, boxes in zip(seen, boxes_xyxy, strict=True):
            regions, _ = self.model.region_features(image, torch.from_numpy(boxes.astype(np.float32)))
            found.append(
                ImageVectors(image=image.pooled.float().cpu().numpy(), regions=regions.float().cpu().numpy())
            )
        return found

    def of_image(
        self, pixels: UInt8[np.ndarray, "_h _w 3"], boxes_xyxy: Float[np.ndarray, "R 4"]
    ) -> ImageVectors:
        """One image and its boxes."""
        (found,) = self.of_images([pixels], [boxes_xyxy])
        return found

    def texts(self, phrases: Sequence[str]) -> Float[np.ndarray, "T D"]:
        """Unit vectors of phrases for regions, in order; each is encoded once while it is kept."""
        if not phrases:
            return np.zeros((0, self.width), np.float32)
        return self._phrases(phrases).float().cpu().numpy()
