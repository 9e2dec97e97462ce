"""Teach a miniature SAM 3: phrases that are true of a scene and phrases that are not, in English and Chinese.

Every phrase is a class name. Presence says whether it is true of the scene; queries are matched with the regions that
it is true of; the semantic head draws them all at once (arXiv:2511.16719, sections 2 and 3). A stuff phrase has one
region. Image features are computed once a scene and serve all its phrases. First the patches alone are taught, by a
linear head that is thrown away: phrases cost most of a step, and teach little before the patches differ.

Axes: B scenes, N pairs of a scene and a phrase, R regions (things, then stuff), C classes, K targets of a pair,
m m cells of a mask, D channels of the detector.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

from ovsops.backbones.miniature import miniature_sam3, save_half, write_clip_tokenizer
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.sam3_licence import OWN_WEIGHTS_KEY
from ovsops.backbones.tokenizers import ClipTokenizer
from ovsops.errors import ConfigError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.set_prediction import (
    SetTargets,
    SetWeights,
    box_losses,
    corners,
    dice_loss,
    match_queries,
    set_prediction_losses,
)
from ovsops.miniature.attributes import LANGUAGES, NOUNS, STUFF
from ovsops.miniature.words import WORDS
from ovsops.training.dinov2 import mirrored
from ovsops.training.fields import require_at_least, require_positive, require_seed
from ovsops.training.patch_labels import weighted_cross_entropy
from ovsops.training.scenes import (
    NUM_CLASSES,
    NUM_STUFF,
    NUM_THING_CLASSES,
    SceneBank,
    StepDraws,
    check_picture_size,
    class_shares,
    region_shares,
    tight_boxes,
)

NAMES = tuple(word.in_language(language) for language in LANGUAGES for word in (*NOUNS, *STUFF))
"""Every class name in English, then in Chinese."""
LEAST_PIXELS = 16
"""A region counts from here on. Of a class of which less is seen no phrase is drawn: it is neither true nor false."""
TERMS = ("labels", "presence", "scores", "box_l1", "box_giou", "masks", "dice", "semantic", "semantic_dice")


@dataclass(frozen=True, kw_only=True)
class Sam3ProgramConfig:
    """What the miniature SAM 3 learns from."""

    batch_size: int = 24
    """Scenes per worker and step."""
    phrases_per_scene: int = 4
    """Class names that each scene is asked for; half of them are false of it, or more where it holds too little."""
    patches_only_steps: int = 600
    """First steps, without phrases."""
    stuff_share: float = 0.4
    """How readily a true stuff phrase is drawn beside a thing's, and what a stuff patch weighs."""
    label_weight: float = 1.0
    """Of the class of each patch on a linear head, which is thrown away."""
    presence_weight: float = 1.0
    semantic_weight: float = 4.0
    """Of cross-entropy and dice of the semantic head."""
    set_weights: SetWeights = field(default_factory=SetWeights)
    """Of the queries."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size")
        require_at_least(self, "program", 0, "patches_only_steps")
        if not 2 <= self.phrases_per_scene <= NUM_CLASSES // 2:
            raise ConfigError(
                f"program.phrases_per_scene is {self.phrases_per_scene}; it must lie in [2, {NUM_CLASSES // 2}]"
            )
        if not 0 < self.stuff_share <= 1:
            raise ConfigError(f"program.stuff_share is {self.stuff_share}; it must lie in (0, 1]")
        require_positive(self, "program", "label_weight", "presence_weight", "semantic_weight")
        require_at_least(
            self.set_weights, "program.set_weights", 0, *(f.name for f in fields(self.set_weights))
        )
        require_seed(self, "program")


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """Which scene each phrase is put to, what it says, and whether it is true."""

    scenes: Int[Tensor, " N"]
    classes: Int[Tensor, " N"]
    """From 0."""
    languages: Int[Tensor, " N"]
    is_true: Bool[Tensor, " N"]


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The regions of some scenes."""

    classes: Int[Tensor, "B R"]
    """From 0."""
    masks: Float[Tensor, "B R m m"]
    """Share of each cell."""
    boxes: Float[Tensor, "B R 4"]
    """Corners as shares of the sides."""
    is_there: Bool[Tensor, "B R"]


class Sam3Module(nn.Module):
    """The model and the head that only training needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.label_head = nn.Linear(model.config.vision_config.backbone_config.hidden_size, NUM_CLASSES)
        for part in (
            model.geometry_encoder,  # boxes as prompts
            model.text_encoder.text_projection,  # of CLIP's own output, which SAM 3 does not read
            model.vision_encoder.neck.fpn_layers[-1],  # the level that SAM 3 computes and drops
        ):
            part.requires_grad_(False)


class Sam3Program:
    """Presence, queries and the semantic head over batches of a bank."""

    def __init__(
        self,
        bank: SceneBank,
        config: Sam3ProgramConfig,
        work_folder: Path,
        *,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.device = bank, config, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        write_clip_tokenizer(work_folder, WORDS)
        self.model = miniature_sam3(len(WORDS), seed=config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: Sam3Module = Sam3Module(self.model).to(device)
        backbone = self.model.config.vision_config.backbone_config
        self.patch_size = int(backbone.patch_size)
        check_picture_size(bank.size_hw, patch_size=self.patch_size, side=int(backbone.image_size))
        self.cell_size = self.patch_size // 2  # of a mask, in pixels
        tokenizer = ClipTokenizer(work_folder, length=self.model.config.text_config.max_position_embeddings)
        rows = tokenizer(NAMES)
        longest = max(map(len, rows))
        self.name_ids = torch.tensor([[*row, *[tokenizer.eos] * (longest - len(row))] for row in rows]).to(
            device
        )
        lengths = torch.tensor([len(row) for row in rows])
        self.name_mask = (torch.arange(longest) < lengths[:, None]).to(device)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """The terms of `TERMS` (0 without phrases, in the first `patches_only_steps`) and their weighted `total`."""
        config = self.config
        rows, generator = self.draws(step)
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        images = mirrored(self.bank.images[rows], flipped).to(self.device)
        semantic = mirrored(self.bank.semantic[rows], flipped)
        views = normalized(images.float(), mean=SIGLIP_MEAN, std=SIGLIP_STD)
        losses = dict.fromkeys(TERMS, torch.zeros((), device=self.device))
        if step < config.patches_only_steps:
            tokens = self.model.vision_encoder.backbone(views).last_hidden_state
        else:
            encoded = self.model.get_vision_features(views)
            tokens = encoded.last_hidden_state
            regions = regions_of(
                mirrored(self.bank.instances[rows], flipped),
                semantic,
                self.bank.codes[rows, :, 0],
                cell_size=self.cell_size,
            )
            phrases = draw_phrases(
                regions, count=config.phrases_per_scene, stuff_share=config.stuff_share, generator=generator
            )
            losses |= self.phrase_losses(encoded, regions, phrases)
        shares = class_shares(semantic, patch_size=self.patch_size).flatten(2).transpose(1, 2)
        losses["labels"] = weighted_cross_entropy(
            self.module.label_head(tokens), shares.to(self.device), stuff_share=config.stuff_share
        )
        weights = config.set_weights
        losses["total"] = (
            config.label_weight * losses["labels"]
            + config.presence_weight * losses["presence"]
            + config.semantic_weight * (losses["semantic"] + losses["semantic_dice"])
            + weights.score * losses["scores"]
            + weights.box_l1 * losses["box_l1"]
            + weights.box_giou * losses["box_giou"]
            + weights.mask * losses["masks"]
            + weights.dice * losses["dice"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """A SAM 3 checkpoint folder with its tokenizer, float16; its config says that the weights are our own."""
        save_half(self.model, folder)
        path = folder / "config.json"
        config = json.loads(path.read_text("utf-8")) | {OWN_WEIGHTS_KEY: True}
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
        write_clip_tokenizer(folder, WORDS)

    def phrase_losses(self, encoded: Any, regions: Regions, phrases: Phrases) -> dict[str, Tensor]:
        """All terms but `labels`. Boxes of every decoder layer are compared, masks and scores of the last."""
        found = self._predict(encoded, phrases)
        masks, targets = targets_of(regions, phrases)
        masks, is_true = masks.to(self.device), phrases.is_true.to(self.device)
        targets = SetTargets(**{name: value.to(self.device) for name, value in vars(targets).items()})
        queries = (found.pred_logits, found.pred_boxes, found.pred_masks)
        matches = match_queries(*queries, targets, weights=self.config.set_weights)
        losses = set_prediction_losses(*queries, targets, matches)
        # Entry 0 is where the queries start, entry i the boxes after layer i; after the last layer: pred_boxes.
        for earlier in found.decoder_reference_boxes[1:]:
            for name, value in box_losses(corners(earlier), targets.boxes, matches).items():
                losses[name] = losses[name] + value
        drawn = found.semantic_seg[:, 0].float()
        losses["presence"] = F.binary_cross_entropy_with_logits(
            found.presence_logits[:, 0].float(), is_true.float()
        )
        losses["semantic"] = F.binary_cross_entropy_with_logits(drawn, masks)
        losses["semantic_dice"] = dice_loss(drawn[is_true], masks[is_true])
        return losses

    def _predict(self, encoded: Any, phrases: Phrases) -> Any:
        """What every phrase finds in its scene."""
        scenes = phrases.scenes.to(self.device)
        names = (phrases.languages * NUM_CLASSES + phrases.classes).to(self.device)
        read = self.model.get_text_features(input_ids=self.name_ids, attention_mask=self.name_mask.long())
        return self.model(
            vision_embeds=Sam3VisionEncoderOutput(
                fpn_hidden_states=tuple(level[scenes] for level in encoded.fpn_hidden_states),
                fpn_position_encoding=tuple(
                    encoding[:1].expand(len(scenes), *encoding.shape[1:])
                    for encoding in encoded.fpn_position_encoding
                ),
            ),
            text_embeds=BaseModelOutputWithPooling(pooler_output=read.pooler_output[names]),
            attention_mask=self.name_mask[names],
        )


def regions_of(
    instances: UInt8[Tensor, "B h w"],
    semantic: UInt8[Tensor, "B h w"],
    nouns: Int[Tensor, "B T"],
    *,
    cell_size: int,
) -> Regions:
    """Every thing that is seen, and every stuff. A thing of which fewer than LEAST_PIXELS are seen is not there."""
    num_things = nouns.shape[1]
    stuff = torch.arange(NUM_THING_CLASSES, NUM_THING_CLASSES + NUM_STUFF)
    labels = torch.cat([torch.arange(1, num_things + 1), stuff + 1])
    of_things, of_stuff = labels.split([num_things, NUM_STUFF])
    planes = torch.cat(
        [
            instances[:, None] == of_things[:, None, None],
            semantic[:, None] == of_stuff[:, None, None],
        ],
        dim=1,
    )
    return Regions(
        classes=torch.cat([nouns, stuff.expand(len(nouns), -1)], dim=1),
        masks=region_shares(instances, semantic, patch_size=cell_size, num_things=num_things),
        boxes=tight_boxes(planes),
        is_there=planes.sum(dim=(2, 3)) >= LEAST_PIXELS,
    )


def draw_phrases(regions: Regions, *, count: int, stuff_share: float, generator: torch.Generator) -> Phrases:
    """`count` class names for each scene, no name twice: half of them true where it holds so many classes."""
    batch = len(regions.classes)
    seen = torch.zeros(batch, NUM_CLASSES).scatter_add_(
        1, regions.classes.clamp_min(0), (regions.is_there & (regions.classes >= 0)).float()
    )
    is_present = seen > 0
    touched = torch.zeros(batch, NUM_CLASSES).scatter_add_(
        1, regions.classes.clamp_min(0), regions.masks.sum(dim=(2, 3)) * (regions.classes >= 0)
    )
    weight = torch.where(torch.arange(NUM_CLASSES) < NUM_THING_CLASSES, 1.0, stuff_share)
    keys = torch.rand(batch, NUM_CLASSES, generator=generator)
    true_order = torch.where(is_present, keys ** (1 / weight), -1.0).argsort(dim=1, descending=True)
    false_order = torch.where(touched > 0, -1.0, keys).argsort(dim=1, descending=True)
    num_true = is_present.sum(dim=1).clamp_max(count // 2)[:, None]
    place = torch.arange(count)[None]
    is_true = place < num_true
    classes = torch.where(
        is_true,
        true_order.gather(1, place.expand(batch, -1)),
        false_order.gather(1, (place - num_true).clamp_min(0)),
    )
    return Phrases(
        scenes=torch.arange(batch).repeat_interleave(count),
        classes=classes.flatten(),
        languages=torch.randint(len(LANGUAGES), (batch * count,), generator=generator),
        is_true=is_true.flatten(),
    )


def targets_of(regions: Regions, phrases: Phrases) -> tuple[Float[Tensor, "N m m"], SetTargets]:
    """What the semantic head should draw for each phrase, and the regions that the queries should find."""
    scenes = phrases.scenes
    is_meant = (regions.classes[scenes] == phrases.classes[:, None]) & regions.is_there[scenes]
    order = is_meant.int().argsort(dim=1, descending=True, stable=True)
    order = order[:, : max(1, int(is_meant.sum(dim=1).max()))]
    masks = regions.masks[scenes[:, None], order]
    is_there = is_meant.gather(1, order)
    whole = (masks * is_there[:, :, None, None]).sum(dim=1)
    return whole, SetTargets(boxes=regions.boxes[scenes[:, None], order], masks=masks, is_there=is_there)
