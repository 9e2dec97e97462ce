"""What the miniature CLIP and DINO know, on drawn scenes that they were not taught.

The measures of `quality`, for towers of another shape. Axes: N scenes, H W patch grid, P patches, D channels.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.clip import ClipText, ClipVision
from ovsops.backbones.dino import DinoKeys, Dinov2Keys, load_vfm
from ovsops.metrics.retrieval import RankCounts
from ovsops.metrics.segmentation import ConfusionCounts
from ovsops.miniature.attributes import CLASS_NAMES, NOUNS, STUFF, Language
from ovsops.training.quality import retrieval_counts
from ovsops.training.scenes import SceneBank, class_shares

_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class ClipTowers:
    """Both towers of one CLIP checkpoint."""

    text: ClipText
    vision: ClipVision


def load_clip(folder: Path) -> ClipTowers:
    """The miniature CLIP of a folder, float32 on the CPU."""
    place = resolve(Checkpoint(source=str(folder)))
    return ClipTowers(
        text=ClipText(place, device="cpu", dtype=torch.float32),
        vision=ClipVision(place, device="cpu", dtype=torch.float32),
    )


def load_keys(folder: Path) -> DinoKeys | Dinov2Keys:
    """The miniature DINO (or DINOv2) of a folder, as CASS takes it, float32 on the CPU."""
    return load_vfm(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32)


def clip_retrieval(towers: ClipTowers, bank: SceneBank, language: Language) -> tuple[RankCounts, RankCounts]:
    """Image to text and text to image over all scenes of the bank by their long captions; equal captions are right."""
    captions = bank.captions[language, "long"]
    images = torch.cat(
        [
            towers.vision.image_embedding(towers.vision.encode(pixels, position="native").blocks)
            for pixels in _batches(bank)
        ]
    )
    return retrieval_counts(images, towers.text.encode(captions).embeddings, captions)


def plain_patch_names(towers: ClipTowers, bank: SceneBank, language: Language) -> ConfusionCounts:
    """Every patch named by the likest class name, from what the last block puts out as it is: what calibration of
    dense features starts from. Ids are 1 to 20; the truth is the class that covers most of a patch.
    """
    vision = towers.vision
    names = [word.in_language(language) for word in (*NOUNS, *STUFF)]
    texts = F.normalize(towers.text.encode(names).embeddings, dim=-1)
    counts = ConfusionCounts.zeros(len(CLASS_NAMES) + 1)
    truth = class_shares(bank.semantic, patch_size=vision.patch_size).flatten(2).argmax(dim=1) + 1
    for pixels, classes in zip(_batches(bank), truth.split(_BATCH), strict=True):
        hidden = vision.encode(pixels, position="native")
        dense = F.normalize(vision.project(hidden.patches(vision.num_layers)), dim=-1)
        found = (dense @ texts.T).argmax(dim=-1) + 1
        counts = counts.update(classes.numpy(), found.numpy())
    return counts


def key_tokens(vfm: DinoKeys | Dinov2Keys, bank: SceneBank) -> list[Float[Tensor, "B P D"]]:
    """Keys of the last block, heads side by side, batch by batch: all that CASS sees of the model."""
    return [
        vfm.last_keys(pixels).permute(0, 2, 3, 1, 4).flatten(3).flatten(1, 2) for pixels in _batches(bank)
    ]


def _batches(bank: SceneBank) -> list[Tensor]:
    return [part.float() for part in bank.images.split(_BATCH)]
