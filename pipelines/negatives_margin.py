"""FG-CLIP 2 looks at the regions of a shard, so that negatives can be compared with pixels. Loads torch: only workers
whose recipe asks for it import this. Axes: R regions, D channels, T texts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from ovsops.annotators.grounder import see_regions
from ovsops.backbones.checkpoint import resolve
from ovsops.backbones.fgclip2 import FgClip2
from ovsops.errors import ImageDecodeError, RowError
from ovsops.images.decode import DecodeConfig
from ovsops.images.decode_pool import DecodePool
from ovsops.negatives.margin_check import MarginValidator
from pipelines.negatives_checks import Checks, TextValidators
from pipelines.negatives_validators import MarginLook

IMAGES_AT_ONCE = 8
"""Images that the model is given at a time."""


@dataclass(frozen=True, kw_only=True)
class MarginValidators:
    """Validators of texts, and FG-CLIP 2 after them."""

    texts: TextValidators
    look: MarginLook

    def build(self) -> Checks:
        """Load the model."""
        looker = RegionLooker(self.look)
        margin = MarginValidator(looker.encode, self.look)
        return Checks(validators=[*self.texts.build().validators, margin], looker=looker)


class RegionLooker:
    """Features of regions, and of texts in the same space."""

    def __init__(self, look: MarginLook) -> None:
        self.look = look
        if look.device == "cpu":
            torch.set_num_threads(1)
        self.model = FgClip2(resolve(look.fgclip2), device=look.device, dtype=torch.float32)
        self.decoders = DecodePool(DecodeConfig(), num_workers=1)

    def encode(self, texts: Sequence[str]) -> Float[np.ndarray, "T D"]:
        """Unit vectors of phrases for regions."""
        found: Float[np.ndarray, "T D"] = self.model.encode_text(texts, length="box").cpu().numpy()
        return found

    def features(
        self,
        source: Iterator[Mapping[str, Any]],
        images: Mapping[int, str],
        regions: Mapping[str, Sequence[Mapping[str, Any]]],
    ) -> dict[str, Float[np.ndarray, " D"]]:
        """Unit vectors by `instance_uid`; regions that cover no patch have none.

        `source` are rows with bytes, `images` uids by place in the shard, `regions` rows by image.
        """
        found: dict[str, Float[np.ndarray, " D"]] = {}
        wanted = (row for row in source if regions.get(images.get(row["index"], "")))
        while some := list(islice(wanted, IMAGES_AT_ONCE)):
            pixels = [self._decoded(row) for row in some]
            for row, seen in zip(
                some, self.model.encode_images(pixels, budget=self.look.max_patches), strict=True
            ):
                own = regions[images[row["index"]]]
                xywh = torch.tensor([region["bbox"] for region in own], dtype=torch.float32)
                boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
                looked = see_regions(self.model, seen, boxes)
                for region, feature, is_empty in zip(
                    own, looked.features.cpu().numpy(), looked.is_empty.tolist(), strict=True
                ):
                    if not is_empty:
                        found[region["instance_uid"]] = feature
        return found

    def _decoded(self, row: Mapping[str, Any]) -> np.ndarray:
        try:
            return self.decoders.submit(row["image"]).result().pixels
        except ImageDecodeError as error:
            raise RowError(
                error.code, f"image {row['key']} was labelled and does not decode any more: {error}"
            ) from error
