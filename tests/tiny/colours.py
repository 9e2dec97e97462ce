"""Eyes that cost nothing, in the place of FG-CLIP 2: the colours of a box. Loads no torch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ovsops.images.decode_pool import DecodePool
from pipelines.embedding import EmbedStage
from pipelines.storage import open_storage
from pipelines.units import UnitStage


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """As `ovsops.regions.region_vectors.ImageVectors`."""

    image: np.ndarray
    regions: np.ndarray


class Colours:
    """Sees colours: of each box the mean of its three stripes; nothing where the box is empty."""

    encoded = 0
    """Images, over all its lives."""

    def of_images(self, images: Sequence[np.ndarray], boxes: Sequence[np.ndarray]) -> list[Seen]:
        type(self).encoded += len(images)
        return [
            Seen(image=_unit(image), regions=np.stack([_unit(_cut(image, box)) for box in own]))
            for image, own in zip(images, boxes, strict=True)
        ]


class SeeingStage(EmbedStage):
    """Embeds by colours."""

    def setup(self) -> None:
        UnitStage.setup(self)
        self.label_storage = open_storage(self.labels, self.options)
        self.vectors = Colours()  # type: ignore[assignment]
        self.decoder = DecodePool(self.decode, num_workers=1, timeout_s=self.config.decode_timeout_s)


def _cut(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    left, top, right, bottom = box.astype(int)
    return image[top:bottom, left:right]


def _unit(pixels: np.ndarray) -> np.ndarray:
    stripes = [part.reshape(-1, 3).mean(0) for part in np.array_split(pixels, 3)]
    vector = np.concatenate(stripes) - 100
    return (vector / np.linalg.norm(vector)).astype(np.float32)
