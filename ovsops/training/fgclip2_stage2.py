"""FG-CLIP 2, stage 2: regions meet their phrases and their hard negatives, whole images their captions.

The terms are those of `ovsops.losses.fgclip2` (arXiv:2510.10921, section 3.2; repository 360CVGroup/FG-CLIP, commit
b1af1cd), weighted as the paper or the published code does, or by weights of one's own. No term is dropped in silence:
too few regions on a worker are an error, or are skipped and counted in the curve.

Where a source knows every pixel, the values of a thing's attributes can be asked of its patches, too, through a linear
head that is thrown away: patches learn what a pattern is before the text tower can say it. That is not FG-CLIP 2's, and
off unless asked for.

Axes: B images, R regions, H regions with negatives, K = 1 + negatives, D channels, P patches, A attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.backbones.fgclip2_model import FgClip2Model
from ovsops.backbones.fgclip2_pixels import PatchBatch
from ovsops.errors import ConfigError
from ovsops.losses.fgclip2 import (
    WEIGHTS,
    FgClip2Batch,
    FgClip2LossConfig,
    FgClip2Scales,
    Term,
    Weights,
    fgclip2_loss,
)
from ovsops.losses.fgclip2_terms import TicMode
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.siglip import equal_pairs
from ovsops.training.fgclip2_batch import RegionBatch, RegionSource, ThingMaps
from ovsops.training.fgclip2_labels import label_loss, patch_labels
from ovsops.training.fgclip2_module import FgClip2Embedder, FgClip2Module
from ovsops.training.fgclip2_scenes import SceneRegionsConfig
from ovsops.training.fields import require_at_least, require_positive, require_seed

SKIPPED = "_skipped"
"""Ending of the curve's column that says on which share of the steps (and workers) a term was skipped. A skipped term
is 0 in its own column."""


@dataclass(frozen=True, kw_only=True)
class TermWeights:
    """What each term is multiplied by; None is the published weight. At 0 a term is still in the curve."""

    global_short: float | None = None
    global_long: float | None = None
    fgv: float | None = None
    """Regions and their own phrases; a start without region features needs far more than the published weight."""
    fgt: float | None = None
    """The true phrase among its own negatives."""
    tic: float | None = None
    """Phrases away from each other."""
    cmr: float | None = None
    """The true phrase ahead of its negatives by a margin."""
    hard_infonce: float | None = None
    """True phrases among all negatives; only with `weights: code`."""

    def of(self, weights: Weights) -> dict[Term, float]:
        """Of every term of a variant. ConfigError for a term that it has not."""
        said = {name: value for name, value in vars(self).items() if value is not None}
        if foreign := [name for name in said if name not in WEIGHTS[weights]]:
            raise ConfigError(
                f"program.term_weights.{foreign[0]} is {said[foreign[0]]}, but weights: {weights} has no such term; "
                "leave it out, or take weights: code"
            )
        return {term: said.get(term, published) for term, published in WEIGHTS[weights].items()}


@dataclass(frozen=True, kw_only=True)
class FgClip2Stage2Config:
    """How regions and images are taught."""

    batch_size: int = 32
    """Scenes per worker and step."""
    weights: Weights = "paper"
    """`paper`: five terms, margins of cosines; `code`: six, margins of logits."""
    term_weights: TermWeights = field(default_factory=TermWeights)
    tic_mode: TicMode = "corrected"
    """Whether texts that are too alike are left out of TIC (`corrected`) or compete as a cosine of 0 (`upstream`)."""
    too_few: Literal["error", "skip"] = "error"
    """Where a worker has too few regions for a term: stop all, or skip it there and count it in the curve."""
    region_scale: float = 100.0
    """Where the learned scales of region terms start; 100 in the published code, less for a start that knows little."""
    label_weight: float = 0.0
    """Of the attributes of things on a linear head over patch tokens that is thrown away; 0 leaves the head out."""
    regions: SceneRegionsConfig = field(default_factory=SceneRegionsConfig)
    """What is said of the scenes' regions."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size")
        require_at_least(self, "program", 0, "label_weight")
        require_positive(self, "program", "region_scale")
        require_seed(self, "program")
        self.loss  # noqa: B018 - refuses a variant that there is not
        terms = self.term_weights.of(self.weights)
        if wrong := [term for term, weight in terms.items() if not 0 <= weight < float("inf")]:
            raise ConfigError(f"program.term_weights.{wrong[0]} is {terms[wrong[0]]}; it must be 0 or more")
        if not any(terms.values()):
            raise ConfigError("program.term_weights: every weight is 0, so nothing is learned; raise one")

    @property
    def loss(self) -> FgClip2LossConfig:
        """The same for the loss."""
        return FgClip2LossConfig(weights=self.weights, tic_mode=self.tic_mode, too_few=self.too_few)


class FgClip2Stage2Program:
    """All terms over batches of a source. The margin is a part of the state."""

    def __init__(
        self,
        source: RegionSource,
        config: FgClip2Stage2Config,
        model: FgClip2Model,
        tokenizer_folder: Path,
        *,
        gather: Gather = no_gather,
        device: str = "cpu",
    ) -> None:
        self.source, self.config, self.gather, self.device = source, config, gather, device
        self.weights = config.term_weights.of(config.weights)
        model.dense_feature_head.probe.requires_grad_(False)  # stored, and used by nothing
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: FgClip2Module = FgClip2Module(
                model,
                region_scale=config.region_scale,
                has_label_head=config.label_weight > 0,
            ).to(device)
        self.embedder = FgClip2Embedder(model, tokenizer_folder, device=device)
        self._next_margin: Tensor | None = None

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """Every term of the variant, `TERM_skipped` of each that can be, `margin`, and the weighted `total`."""
        module = self.module
        batch = self.source.regions(step)
        embedded, tokens, patches = self._embed(batch)
        found = fgclip2_loss(
            embedded,
            FgClip2Scales(
                log_scale=module.model.logit_scale.squeeze(),
                bias=module.model.logit_bias.squeeze(),
                log_scale_regions=module.log_scale_regions,
                log_scale_hard=module.log_scale_hard,
            ),
            margin=module.margin,
            config=self.config.loss,
            gather=self.gather,
        )
        self._next_margin = found.margin
        losses: dict[str, Tensor] = {term: value for term, value in found.terms.items()}
        for term in self.config.loss.least:
            losses[f"{term}{SKIPPED}"] = torch.tensor(float(term in found.skipped))
        losses["margin"] = found.margin
        losses["total"] = torch.stack(
            [self.weights[term] * value for term, value in found.terms.items()]
        ).sum()
        if self.config.label_weight:
            losses["labels"] = self._label_loss(tokens, patches, batch.things)
            losses["total"] = losses["total"] + self.config.label_weight * losses["labels"]
        return losses

    def after_step(self, step: int) -> None:
        """The margin of the next step, equal on all workers."""
        assert self._next_margin is not None, "a step has its losses first"
        self.module.margin.copy_(self._next_margin)

    def export(self, folder: Path) -> None:
        """An FG-CLIP 2 checkpoint folder with its tokenizer, float16."""
        self.embedder.export(folder)

    def _label_loss(
        self, tokens: Float[Tensor, "B P D"], patches: PatchBatch, things: ThingMaps | None
    ) -> Float[Tensor, ""]:
        """`label_loss` of the thing that covers most of each patch."""
        if things is None or bool((patches.grids != patches.grids[:1]).any()):
            raise ConfigError(
                f"program.label_weight is {self.config.label_weight}, but this source does not know which thing is "
                "where, or has images of several sizes: set it to 0"
            )
        labels = patch_labels(things, grid=(int(patches.grids[0, 0]), int(patches.grids[0, 1])))
        assert self.module.label_head is not None, "it is there where label_weight is over 0"
        return label_loss(self.module.label_head, tokens.flatten(0, 1), labels.flatten(0, 1).to(self.device))

    def _embed(self, batch: RegionBatch) -> tuple[FgClip2Batch, Float[Tensor, "B P D"], PatchBatch]:
        embedder = self.embedder
        images, tokens, patches = embedder.images(batch.images)
        regions = embedder.regions(
            tokens,
            patches,
            [(image.shape[0], image.shape[1]) for image in batch.images],
            batch.boxes_xyxy.to(self.device),
            batch.box_images,
        )
        num_texts = 1 + len(next(iter(batch.negatives), ()))
        hard = [
            text
            for phrase, negatives in zip(batch.hard_phrases, batch.negatives, strict=True)
            for text in (phrase, *negatives)
        ]
        phrases = embedder.texts([*batch.phrases, *hard], length="box")
        of_regions, of_hard = phrases.split([len(batch.phrases), len(hard)])
        keys = batch.phrase_keys.to(self.device)
        labels = None if batch.label_keys is None else batch.label_keys.to(self.device)
        embedded = FgClip2Batch(
            images=images,
            texts_short=embedder.texts(batch.captions_short, length="short"),
            texts_long=embedder.texts(batch.captions_long, length="long"),
            region_images=regions,
            region_texts=of_regions,
            hard_images=regions[batch.hard_regions.to(self.device)],
            hard_texts=of_hard.unflatten(0, (len(batch.negatives), num_texts)),
            global_positives=equal_pairs(batch.caption_keys.to(self.device), gather=self.gather),
            region_positives=keys[:, None] == keys[None],
            region_rivals=None if labels is None else labels[:, None] != labels[None],
        )
        return embedded, tokens, patches
