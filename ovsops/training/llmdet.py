"""Teach a miniature LLMDet to find and name nouns, in English and Chinese (MM-Grounding-DINO, arXiv:2401.02361).

The set loss is our own, on the proposals of the encoder, several for each thing, and on every decoder layer, one for
each. The loss of transformers (5.23) does not serve: it cuts the proposal heads off from the gradient, and it shifts
labels wrongly where the prompts of a batch differ. All scenes of a step share one prompt.

What is exported is a running average of the weights, which needs no falling rate: a training with a constant rate may
be lengthened, or stopped, wherever its curve says so.

First the cells of the image encoder alone are taught, by linear heads that are thrown away: boxes and names teach
little before the cells differ.

Axes: B scenes, T things, L names of the prompt, Q queries, P proposals (all cells), D layers, N tokens of the prompt.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.grounding_prompts import GroundingPrompt, name_prompts
from ovsops.backbones.miniature import (
    IMAGE_SIZE,
    PATCH_SIZE,
    miniature_llmdet,
    save_half,
    write_bert_tokenizer,
)
from ovsops.backbones.pixels import IMAGENET_MEAN, IMAGENET_STD, normalized
from ovsops.backbones.wordpiece import WordPieces
from ovsops.errors import ConfigError
from ovsops.losses.ema import ema_update
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.labelled_boxes import BoxWeights, LabelledBoxes, labelled_box_losses, match_boxes
from ovsops.losses.set_prediction import corners
from ovsops.miniature.words import WORDS
from ovsops.text.label_names import LabelNames
from ovsops.training.detector_prompts import AskedNames, draw_names
from ovsops.training.dinov2 import mirrored
from ovsops.training.fields import require_at_least, require_positive, require_seed, require_share
from ovsops.training.patch_labels import weighted_cross_entropy
from ovsops.training.scenes import (
    NUM_CLASSES,
    SceneBank,
    StepDraws,
    check_picture_size,
    class_shares,
    tight_boxes,
)

LEAST_PIXELS = 16
"""A thing counts from here on."""
_OF_BOXES = ("scores", "box_l1", "box_giou")
TERMS = ("labels", *(f"proposal_{name}" for name in _OF_BOXES), *_OF_BOXES)


@dataclass(frozen=True, kw_only=True)
class LlmDetProgramConfig:
    """What the miniature LLMDet learns from."""

    batch_size: int = 24
    """Scenes per worker and step."""
    cells_only_steps: int = 300
    """First steps, of the image encoder alone."""
    proposals_per_thing: int = 4
    """How many cells of the encoder answer for each thing."""
    partial_share: float = 0.3
    """Steps that ask for some nouns and some stuff instead of all nouns."""
    attribute_share: float = 0.2
    """Steps whose nouns come with attributes that mean nothing, so that longer phrases are read as their noun."""
    told_absent: bool = True
    """False: a name teaches nothing about pictures that do not show it, as where prompts are made of captions."""
    label_weight: float = 1.0
    """Of the class of each cell on linear heads, which are thrown away."""
    stuff_share: float = 0.2
    """What a cell of stuff weighs there."""
    proposal_weight: float = 1.0
    """Of the loss of the proposals, beside that of the decoder layers."""
    set_weights: BoxWeights = field(default_factory=BoxWeights)
    """Of names and boxes, for proposals and layers."""
    average_momentum: float = 0.999
    """Of the running average of weights, which is exported; less in the first steps."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size", "proposals_per_thing")
        require_at_least(self, "program", 0, "cells_only_steps")
        require_share(self, "program", "partial_share", "attribute_share", "average_momentum")
        if not 0 < self.stuff_share <= 1:
            raise ConfigError(f"program.stuff_share is {self.stuff_share}; it must lie in (0, 1]")
        require_positive(self, "program", "label_weight", "proposal_weight")
        require_positive(self.set_weights, "program.set_weights", *(f.name for f in fields(self.set_weights)))
        require_seed(self, "program")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a detector says of each name, from its proposals and after each layer."""

    proposal_logits: Float[Tensor, "B P L"]
    proposal_boxes: Float[Tensor, "B P 4"]
    """Corners, as shares of the sides."""
    logits: Float[Tensor, "D B Q L"]
    boxes: Float[Tensor, "D B Q 4"]


class LlmDetModule(nn.Module):
    """The model, the running average of its weights, and the heads that only training needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        tower = model.model.backbone.conv_encoder
        tower.model.swin.layernorm.requires_grad_(False)  # of the last map, which only a classifier reads
        self.average = deepcopy(model).eval().requires_grad_(False)
        self.label_heads = nn.ModuleList(
            nn.Linear(width, NUM_CLASSES) for width in tower.intermediate_channel_sizes
        )


class LlmDetProgram:
    """Names and boxes over batches of a bank."""

    def __init__(
        self,
        bank: SceneBank,
        config: LlmDetProgramConfig,
        work_folder: Path,
        *,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.device = bank, config, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        check_picture_size(bank.size_hw, patch_size=PATCH_SIZE, side=IMAGE_SIZE)
        write_bert_tokenizer(work_folder, WORDS)
        self.pieces = WordPieces(work_folder)
        self.model = miniature_llmdet(WORDS, seed=config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: LlmDetModule = LlmDetModule(self.model).to(device)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """The terms of `TERMS` (0 but for the cells' in the first `cells_only_steps`) and their weighted `total`."""
        config = self.config
        rows, generator = self.draws(step)
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        images = mirrored(self.bank.images[rows], flipped).to(self.device)
        views = normalized(images.float(), mean=IMAGENET_MEAN, std=IMAGENET_STD)
        losses = dict.fromkeys(TERMS, torch.zeros((), device=self.device))
        if step < config.cells_only_steps:
            levels = [level for level, _ in self.model.model.backbone(views, _all_seen(views))[0]]
        else:
            names = draw_names(
                partial_share=config.partial_share,
                attribute_share=config.attribute_share,
                generator=generator,
            )
            answers, levels = answers_of(self.model, views, prompt_of(self.pieces, names))
            targets = targets_of(
                mirrored(self.bank.instances[rows], flipped), self.bank.codes[rows, :, 0], names
            )
            losses |= self.box_terms(answers, targets)
        losses["labels"] = self._label_loss(levels, mirrored(self.bank.semantic[rows], flipped))
        weights = config.set_weights
        of_boxes = {"scores": weights.score, "box_l1": weights.box_l1, "box_giou": weights.box_giou}
        losses["total"] = config.label_weight * losses["labels"] + sum(
            weight * (losses[name] + config.proposal_weight * losses[f"proposal_{name}"])
            for name, weight in of_boxes.items()
        )
        return losses

    def after_step(self, step: int) -> None:
        """The average follows: over few steps at first, so that it forgets the random weights."""
        momentum = min(self.config.average_momentum, (1 + step) / (10 + step))
        ema_update(self.module.average, self.model, momentum)

    def export(self, folder: Path) -> None:
        """The average as an LLMDet checkpoint folder with its tokenizer, float16."""
        save_half(self.module.average, folder)
        write_bert_tokenizer(folder, WORDS)

    def box_terms(self, answers: Answers, targets: LabelledBoxes) -> dict[str, Tensor]:
        """All terms but the cells': of the proposals, and the sum over the decoder layers."""
        weights = self.config.set_weights
        targets = LabelledBoxes(**{name: value.to(self.device) for name, value in vars(targets).items()})
        proposals = (answers.proposal_logits, answers.proposal_boxes)
        matches = match_boxes(
            *proposals, targets, weights=weights, queries_per_target=self.config.proposals_per_thing
        )
        told = self.config.told_absent
        of_proposals = labelled_box_losses(*proposals, targets, matches, told_absent=told)
        losses = {f"proposal_{name}": value for name, value in of_proposals.items()}
        for layer in zip(answers.logits, answers.boxes, strict=True):
            of_layer = match_boxes(*layer, targets, weights=weights)
            found = labelled_box_losses(*layer, targets, of_layer, told_absent=told)
            for name, value in found.items():
                losses[name] = losses.get(name, 0) + value
        return losses

    def _label_loss(
        self, levels: Sequence[Float[Tensor, "B _ _ _"]], semantic: UInt8[Tensor, "B h w"]
    ) -> Float[Tensor, ""]:
        """Class of each cell, mean over the maps of the image encoder. Every second pixel tells enough of a cell."""
        shares = class_shares(semantic[:, ::2, ::2], patch_size=PATCH_SIZE // 2).to(self.device)
        found = []
        for level, head in zip(levels, self.module.label_heads, strict=True):
            of_cells = F.adaptive_avg_pool2d(shares, (level.shape[-2], level.shape[-1]))
            found.append(
                weighted_cross_entropy(
                    head(level.flatten(2).transpose(1, 2)),
                    of_cells.flatten(2).transpose(1, 2),
                    stuff_share=self.config.stuff_share,
                )
            )
        return torch.stack(found).mean()


def prompt_of(pieces: WordPieces, names: AskedNames) -> GroundingPrompt:
    """The one prompt that holds all names, in their order."""
    (prompt,) = name_prompts(
        pieces, LabelNames(names.phrases), names_per_prompt=len(names.phrases), max_tokens=256
    )
    return prompt


def answers_of(
    model: Any, views: Float[Tensor, "B 3 h w"], prompt: GroundingPrompt
) -> tuple[Answers, list[Float[Tensor, "B _ _ _"]]]:
    """What the model says of one prompt about each picture, and the maps of its image encoder.

    The logit of a name is the mean over its tokens. The boxes of a layer are those of transformers' own forward.
    """
    ids = torch.tensor(prompt.token_ids, device=views.device).expand(len(views), -1)
    levels: list[Tensor] = []

    def keep(module: nn.Module, given: Any, made: Any) -> None:
        levels.extend(level for level, _ in made[0])

    hook = model.model.backbone.register_forward_hook(keep)
    try:
        found = model.model(
            pixel_values=views,
            pixel_mask=_all_seen(views),
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
        )
    finally:
        hook.remove()
    tokens = prompt.token_map(ids.shape[1]).to(views.device)
    states, text = found.intermediate_hidden_states, found.encoder_last_hidden_state_text
    references = [found.init_reference_points, *found.intermediate_reference_points.unbind(dim=1)]
    logits, boxes = [], []
    for layer, (name_head, box_head) in enumerate(zip(model.class_embed, model.bbox_embed, strict=True)):
        state = states[:, layer]
        logits.append(name_logits(name_head(state, text, torch.ones_like(ids, dtype=torch.bool)), tokens))
        start = torch.special.logit(references[layer], eps=1e-5)
        boxes.append(corners((box_head(state) + start).float().sigmoid()))
    answers = Answers(
        proposal_logits=name_logits(found.enc_outputs_class, tokens),
        proposal_boxes=corners(found.enc_outputs_coord_logits.float().sigmoid()),
        logits=torch.stack(logits),
        boxes=torch.stack(boxes),
    )
    return answers, levels


def name_logits(
    token_logits: Float[Tensor, "B Q N"], tokens_of_name: Bool[Tensor, "L M"]
) -> Float[Tensor, "B Q L"]:
    """Mean over a name's tokens of their logits; what lies behind the prompt's tokens is not read."""
    tokens = tokens_of_name.float()
    return token_logits[..., : tokens.shape[1]].float() @ (tokens / tokens.sum(dim=1, keepdim=True)).T


def targets_of(
    instances: UInt8[Tensor, "B h w"], nouns: Int[Tensor, "B T"], names: AskedNames
) -> LabelledBoxes:
    """The things that a prompt asks for. One of which fewer than LEAST_PIXELS are seen is not there."""
    numbers = torch.arange(1, nouns.shape[1] + 1, dtype=torch.uint8)
    planes = instances[:, None] == numbers[:, None, None]
    is_named = names.true_of(nouns)
    return LabelledBoxes(
        boxes=tight_boxes(planes),
        is_named=is_named,
        is_there=(planes.sum(dim=(2, 3)) >= LEAST_PIXELS) & is_named.any(dim=2),
    )


def _all_seen(views: Float[Tensor, "B 3 h w"]) -> Bool[Tensor, "B h w"]:
    return torch.ones(views[:, 0].shape, dtype=torch.bool, device=views.device)
