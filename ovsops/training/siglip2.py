"""Teach a miniature SigLIP 2: captions of whole scenes, and phrases of their regions on the dense tokens.

SigLIP 2 learns where things are from grounded captions (LocCa, arXiv:2502.14786 section 2.2). Here the same comes
from the world's masks: a region's tokens, pooled as the head pools an image, meet every phrase of the batch, and
each patch meets the names of the classes. Which phrase is true of which region is known, not guessed.

Axes: B scenes, R regions, P patches, D channels, T texts, A attributes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.miniature import miniature_siglip, save_half, write_word_tokenizer
from ovsops.backbones.pixels import SIGLIP_MEAN, SIGLIP_STD, normalized
from ovsops.backbones.siglip2 import dense_pooling
from ovsops.backbones.tokenizers import SiglipTokenizer
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.siglip import siglip_loss
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, NOUNS, STUFF
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.words import WORDS
from ovsops.training.patch_labels import weighted_cross_entropy
from ovsops.training.scenes import (
    ABSENT,
    FAMILIES,
    NUM_STUFF,
    NUM_THING_CLASSES,
    SceneBank,
    batch_indices,
    class_shares,
    matches,
    phrase_codes,
    region_shares,
    step_generator,
    stuff_codes,
)

_WORDS_OF = {
    language: [
        *(noun.in_language(language) for noun in NOUNS),
        *(stuff.in_language(language) for stuff in STUFF),
    ]
    for language in LANGUAGES
}
"""Name of each class, in the order of ids."""


@dataclass(frozen=True, kw_only=True)
class SiglipProgramConfig:
    """What the miniature SigLIP 2 learns from."""

    batch_size: int = 32
    """Scenes per worker and step."""
    phrases_per_step: int = 44
    """Phrases drawn from the batch's things, beside the names of all classes."""
    long_share: float = 0.7
    """Share of scenes whose long caption is shown; the short one else."""
    region_weight: float = 1.0
    """Of the region-phrase term, beside 1 for whole captions."""
    patch_weight: float = 1.0
    """Of the patch-name term."""
    stuff_share: float = 0.3
    """Weight of a stuff patch or region beside a thing's: stuff is most of every picture and soon learned."""
    seed: int = 0


class SiglipModule(nn.Module):
    """The model, and the scales of the terms that are the training's own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.region_scale = nn.Parameter(torch.tensor(2.302585))
        self.region_bias = nn.Parameter(torch.tensor(-4.0))
        self.patch_scale = nn.Parameter(torch.tensor(2.302585))


class SiglipProgram:
    """Global, region and patch terms over batches of a bank."""

    def __init__(
        self,
        bank: SceneBank,
        config: SiglipProgramConfig,
        work_folder: Path,
        *,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.gather, self.world_size, self.device = (
            bank,
            config,
            gather,
            world_size,
            device,
        )
        write_word_tokenizer(work_folder, WORDS)
        model = miniature_siglip(len(WORDS), seed=config.seed)
        self.module: SiglipModule = SiglipModule(model).to(device)
        self.patch_size = int(model.config.vision_config.patch_size)
        self.tokenizer = SiglipTokenizer(work_folder, length=model.config.text_config.max_position_embeddings)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`captions`, `regions`, `patches` and their weighted `total`."""
        config, bank = self.config, self.bank
        rank = self.gather.rank
        rows = batch_indices(
            step,
            num_scenes=len(bank),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=rank,
            world_size=self.world_size,
        )
        generator = step_generator(config.seed + 1, step * self.world_size + rank)
        tokens = self._patch_tokens(rows)
        captions = self._captions(rows, generator)
        phrases, codes = self._phrases(rows, generator)
        texts = self._embed([*captions, *phrases])
        images = self.module.model.vision_model.head(tokens)
        model = self.module.model
        losses = {
            "captions": siglip_loss(
                texts[: len(captions)],
                images,
                log_scale=model.logit_scale.squeeze(),
                bias=model.logit_bias.squeeze(),
                gather=self.gather,
            )
        }
        about = texts[len(captions) :]
        losses["regions"] = self._region_loss(rows, tokens, about, codes)
        losses["patches"] = self._patch_loss(rows, tokens, about[: len(CLASS_NAMES)])
        losses["total"] = (
            losses["captions"]
            + config.region_weight * losses["regions"]
            + config.patch_weight * losses["patches"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """A SigLIP checkpoint folder with its tokenizer, float16."""
        save_half(self.module.model, folder)
        write_word_tokenizer(folder, WORDS)

    def _patch_tokens(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        views = normalized(self.bank.images[rows].to(self.device), mean=SIGLIP_MEAN, std=SIGLIP_STD)
        hidden: Tensor = self.module.model.vision_model(pixel_values=views).last_hidden_state
        return hidden

    def _embed(self, texts: list[str]) -> Float[Tensor, "T D"]:
        ids = self.tokenizer(texts).to(self.device)
        pooled: Tensor = self.module.model.text_model(input_ids=ids).pooler_output
        return pooled

    def _captions(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> list[str]:
        draws = torch.rand(len(rows), 2, generator=generator).tolist()
        return [
            self.bank.captions[LANGUAGES[int(a < 0.5)], "long" if b < self.config.long_share else "short"][
                int(row)
            ]
            for row, (a, b) in zip(rows, draws, strict=True)
        ]

    def _phrases(
        self, rows: Int[Tensor, " B"], generator: torch.Generator
    ) -> tuple[list[str], Int[Tensor, "T A"]]:
        """The names of all classes in one language, then phrases of things of this batch, and what each says."""
        language = LANGUAGES[int(torch.randint(2, (), generator=generator))]
        names = torch.full((len(CLASS_NAMES), len(FAMILIES)), ABSENT)
        names[:, 0] = torch.arange(len(CLASS_NAMES))
        things = [thing for row in rows.tolist() for thing in self.bank.things[row]]
        chosen = torch.randperm(len(things), generator=generator)[: self.config.phrases_per_step].tolist()
        draws = torch.rand(len(chosen), len(FAMILIES), generator=generator)
        seen: dict[str, list[int]] = {}
        for place, draw in zip(chosen, draws.tolist(), strict=True):
            said = {family for family, u in zip(FAMILIES[1:], draw[1:], strict=True) if u < 0.6}
            phrase = region_phrase(things[place], LANGUAGES[int(draw[0] < 0.5)], said)
            seen[phrase] = phrase_codes(things[place], said)
        extra = torch.tensor(list(seen.values()), dtype=torch.int64).reshape(-1, len(FAMILIES))
        return [*_WORDS_OF[language], *seen], torch.cat([names, extra])

    def _region_loss(
        self,
        rows: Int[Tensor, " B"],
        tokens: Float[Tensor, "B P D"],
        texts: Float[Tensor, "T D"],
        codes: Int[Tensor, "T A"],
    ) -> Float[Tensor, ""]:
        """Sigmoid over (region, phrase), each region weighed; the sum over phrases keeps SigLIP's footing."""
        bank = self.bank
        things = bank.codes[rows]
        shares = region_shares(
            bank.instances[rows], bank.semantic[rows], patch_size=self.patch_size, num_things=things.shape[1]
        ).flatten(2)
        stuff = stuff_codes(range(NUM_STUFF)).expand(len(rows), -1, -1)
        region_codes = torch.cat([things, stuff], dim=1)
        present = shares.sum(dim=-1) > 0.5  # at least half a patch in sight
        mixing = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        regions = dense_pooling(self.module.model.vision_model.head, tokens, mixing.to(self.device))[present]
        truth = matches(codes, region_codes[present]).T.to(self.device)
        similarity = F.normalize(regions, dim=-1) @ F.normalize(texts.float(), dim=-1).T
        weight = torch.where(region_codes[present][:, 0] < NUM_THING_CLASSES, 1.0, self.config.stuff_share)
        logits = similarity * self.module.region_scale.exp() + self.module.region_bias
        each = -F.logsigmoid(torch.where(truth, logits, -logits)).sum(dim=1)
        weight = weight.to(self.device)
        return (each * weight).sum() / weight.sum()

    def _patch_loss(
        self, rows: Int[Tensor, " B"], tokens: Float[Tensor, "B P D"], names: Float[Tensor, "C D"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of each patch over the class names against the shares that the classes cover."""
        shares = class_shares(self.bank.semantic[rows], patch_size=self.patch_size).flatten(2).transpose(1, 2)
        dense = dense_pooling(self.module.model.vision_model.head, tokens)
        logits = (
            F.normalize(dense, dim=-1) @ F.normalize(names.float(), dim=-1).T
        ) * self.module.patch_scale.exp()
        return weighted_cross_entropy(logits, shares.to(self.device), stuff_share=self.config.stuff_share)
