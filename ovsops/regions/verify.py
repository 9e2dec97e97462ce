"""Is it what the label says? Yes, no or unsure by FG-CLIP 2's margin, with a map of where the evidence lies.

Axes: R regions, C names, H W patch grid, D channels. The margin of a label is its cosine above that of its best rival:
another name of the vocabulary. A label without rivals is never sure, as a cosine alone says little.

The map is the cosine of the label with each patch under the box: where the region looks like its label. It shows
what the answer rests on; it is no mask.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.fgclip2 import FgClip2Image
from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.verdicts import FGCLIP2, Answer, EvidenceMap, Verification


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """When a label is believed."""

    yes_margin: float = 0.02
    """A label whose cosine is at least this above that of every rival is right. Not 0: a tie is no yes."""
    no_margin: float = 0.02
    """A label whose cosine is at least this below that of a rival is wrong. Not 0, either."""
    min_cosine: float = -1.0
    """A label that is less near than this is no yes, however far its rivals are."""
    evidence_side: int = 16
    """Rows and columns of an evidence map at most; 0 makes none."""

    def __post_init__(self) -> None:
        if not 0 < self.yes_margin <= 2 or not 0 < self.no_margin <= 2:
            raise ConfigError(
                f"verify: yes_margin is {self.yes_margin}, no_margin {self.no_margin}; differences of cosines over 0,"
                " up to 2, are wanted"
            )
        if not -1 <= self.min_cosine <= 1 or not 0 <= self.evidence_side <= 255:
            raise ConfigError(
                f"verify: min_cosine is {self.min_cosine} (from -1 to 1), evidence_side {self.evidence_side}"
                " (from 0 to 255)"
            )


def verify_regions(
    similarity: Float[Tensor, "R C"],
    labels: Int64[Tensor, " R"],
    is_empty: Bool[Tensor, " R"],
    *,
    is_rival: Bool[Tensor, "R C"] | None = None,
    config: VerifyConfig | None = None,
) -> list[Verification]:
    """An answer for each region. `similarity` are cosines with `box` texts of all names, `labels` places among them.

    `is_rival` says which names stand against a region's label, by default all others; synonyms of the label do not
    belong there. An empty region is `unsure`, without figures.
    """
    config = config or VerifyConfig()
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < similarity.shape[1]:
        raise ShapeError(
            f"labels {labels.unique()[:5].tolist()}... with {similarity.shape[1]} names: places among them are wanted"
        )
    own = similarity.gather(1, labels[:, None])[:, 0].double()
    rivals = torch.ones_like(similarity, dtype=torch.bool) if is_rival is None else is_rival.clone()
    rivals.scatter_(1, labels[:, None], False)
    against = similarity.double().masked_fill(~rivals, -torch.inf)
    found = []
    for row in range(len(labels)):
        if bool(is_empty[row]):
            found.append(Verification(answer="unsure", source=FGCLIP2))
        elif not bool(rivals[row].any()):
            found.append(Verification(answer="unsure", source=FGCLIP2, cosine=float(own[row])))
        else:
            rival = int(against[row].argmax())
            margin, cosine = float(own[row] - against[row, rival]), float(own[row])
            found.append(
                Verification(
                    answer=_answer(margin, cosine, config),
                    source=FGCLIP2,
                    cosine=cosine,
                    margin=margin,
                    rival=rival,
                )
            )
    return found


def evidence_map(
    image: FgClip2Image, box_xyxy: Sequence[float | int], text: Float[Tensor, " D"], *, max_side: int
) -> EvidenceMap:
    """Cosines of `text` (a `box` text of unit length) with the patches that a box touches, at most `max_side` a side.

    Larger ones are averaged down. A box without area or beside the image touches nothing and is a ShapeError.
    """
    if max_side < 1:
        raise ShapeError(f"evidence map with {max_side} cells a side: at least 1 is wanted")
    (rows, columns), (height, width) = image.grid, image.image_hw
    x0, y0, x1, y1 = (float(side) for side in box_xyxy)
    left, top = max(0.0, x0) * columns / width, max(0.0, y0) * rows / height
    right, bottom = min(x1, width) * columns / width, min(y1, height) * rows / height
    if any(map(math.isnan, (x0, y0, x1, y1))) or not (right > left and bottom > top):
        raise ShapeError(
            f"box {[x0, y0, x1, y1]} touches no patch of the {width}x{height} image: ask for empty regions first"
        )
    first_row, last_row = int(top), min(rows, int(np.ceil(bottom)))
    first_column, last_column = int(left), min(columns, int(np.ceil(right)))
    patches = F.normalize(image.dense_map[first_row:last_row, first_column:last_column].float(), dim=-1)
    cosines = patches @ text.to(patches.device).float()  # H W
    shape = (min(cosines.shape[0], max_side), min(cosines.shape[1], max_side))
    cosines = F.adaptive_avg_pool2d(cosines[None], shape)[0].double().cpu()
    low, high = float(cosines.min()), float(cosines.max())
    span = high - low
    scaled = (cosines - low) * (255 / span) if span > 0 else torch.zeros_like(cosines)
    return EvidenceMap(
        data=scaled.round().to(torch.uint8).numpy().tobytes(),
        shape=shape,
        box_xyxy=(
            first_column * width / columns,
            first_row * height / rows,
            last_column * width / columns,
            last_row * height / rows,
        ),
        low=low,
        high=high,
    )


def _answer(margin: float, cosine: float, config: VerifyConfig) -> Answer:
    if margin >= config.yes_margin and cosine >= config.min_cosine:
        return "yes"
    return "no" if -margin >= config.no_margin else "unsure"
