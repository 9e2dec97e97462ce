"""FG-CLIP 2, stage 1: whole images with short and with long captions, no region.

FG-CLIP 2 (arXiv:2510.10921, section 3.1). Both captions meet the pooled image in SigLIP's sigmoid loss; a long one has
positions and a head of its own. What only regions use (the dense head, the head of region phrases) is not touched.

Axes: B images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ovsops.backbones.checkpoint import ResolvedCheckpoint
from ovsops.backbones.fgclip2_model import FgClip2Model
from ovsops.backbones.fgclip2_start import fgclip2_from_naflex
from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.backbones.miniature_fgclip2 import fgclip2_from_miniature, miniature_fgclip2
from ovsops.backbones.siglip2 import siglip_family
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.siglip import equal_pairs, siglip_loss
from ovsops.miniature.region_truth import EXPLICIT_WORDS
from ovsops.miniature.words import WORDS
from ovsops.training.fgclip2_batch import CaptionSource
from ovsops.training.fgclip2_module import FgClip2Embedder, FgClip2Module
from ovsops.training.fields import require_at_least, require_seed, require_weights

FGCLIP2_WORDS: tuple[str, ...] = (*WORDS, *(word for word in EXPLICIT_WORDS if word not in WORDS))
"""Words of the miniature FG-CLIP 2's tokenizer: those of the miniature SigLIP 2, then what only region phrases say."""


@dataclass(frozen=True, kw_only=True)
class FgClip2Stage1Config:
    """How whole images and captions are taught."""

    batch_size: int = 32
    """Scenes per worker and step."""
    short_weight: float = 1.0
    """Of short captions; 1 in the published code."""
    long_weight: float = 1.0
    """Of long captions; 1 in the published code."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size")
        require_weights(self, "program", "short_weight", "long_weight")
        require_seed(self, "program")


class FgClip2Stage1Program:
    """The two global terms over batches of a source."""

    def __init__(
        self,
        source: CaptionSource,
        config: FgClip2Stage1Config,
        model: FgClip2Model,
        tokenizer_folder: Path,
        *,
        gather: Gather = no_gather,
        device: str = "cpu",
    ) -> None:
        self.source, self.config, self.gather, self.device = source, config, gather, device
        for unused in (model.boxtext_head, model.dense_feature_head):
            unused.requires_grad_(False)
        self.module: FgClip2Module = FgClip2Module(model, region_scale=1.0).to(device)
        for unused_scale in (self.module.log_scale_regions, self.module.log_scale_hard):
            unused_scale.requires_grad_(False)
        self.embedder = FgClip2Embedder(model, tokenizer_folder, device=device)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`global_short`, `global_long` and their weighted `total`."""
        batch = self.source.captions(step)
        images, _, _ = self.embedder.images(batch.images)
        model = self.module.model
        positives = equal_pairs(batch.caption_keys.to(self.device), gather=self.gather)
        losses = {
            name: siglip_loss(
                images,
                texts,
                log_scale=model.logit_scale.squeeze(),
                bias=model.logit_bias.squeeze(),
                positives=positives,
                gather=self.gather,
            )
            for name, texts in (
                ("global_short", self.embedder.texts(batch.captions_short, length="short")),
                ("global_long", self.embedder.texts(batch.captions_long, length="long")),
            )
        }
        losses["total"] = (
            self.config.short_weight * losses["global_short"]
            + self.config.long_weight * losses["global_long"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """An FG-CLIP 2 checkpoint folder with its tokenizer, float16."""
        self.embedder.export(folder)


def stage1_start(
    start: ResolvedCheckpoint | None, work_folder: Path, *, seed: int
) -> tuple[FgClip2Model, Path]:
    """The model that stage 1 begins with, and the folder of its tokenizer.

    None: random weights for the miniature world. A SigLIP 2 of fixed resolution must be a miniature one; a NaFlex one
    (as the published training takes) keeps its own tokenizer.
    """
    if start is None or siglip_family(start) == "siglip":
        write_word_tokenizer(work_folder, FGCLIP2_WORDS)
        if start is None:
            return miniature_fgclip2(len(FGCLIP2_WORDS), seed=seed), work_folder
        return fgclip2_from_miniature(start, words=FGCLIP2_WORDS, seed=seed), work_folder
    return fgclip2_from_naflex(start), start.folder
