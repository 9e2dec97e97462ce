"""Teach a miniature SigLIP 2: captions of whole scenes, and phrases of their regions on the dense tokens.

SigLIP 2 learns where things are from grounded captions (LocCa, arXiv:2502.14786 section 2.2). Here the same comes
from the world's masks: a region's tokens, pooled as the head pools an image, meet every phrase of the batch, and
each patch meets the names of the classes. Which phrase is true of which region is known, not guessed. Names and
phrases come in both languages, and each is told from the others by its translation: as long as the names of two
nouns lie on one spot, no patch can learn to tell the nouns apart.

Axes: B scenes, R regions, P patches, D channels, T texts, A attributes.
"""

from collections.abc import Mapping, Sequence
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
from ovsops.losses.infonce import infonce_loss
from ovsops.losses.siglip import siglip_loss
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, NOUNS, STUFF, Language
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.words import WORDS
from ovsops.training.distinct import GatherDistinct
from ovsops.training.fields import require_at_least, require_seed, require_share
from ovsops.training.patch_labels import weighted_cross_entropy
from ovsops.training.scenes import (
    ABSENT,
    FAMILIES,
    NUM_STUFF,
    NUM_THING_CLASSES,
    SceneBank,
    StepDraws,
    check_picture_size,
    class_shares,
    matches,
    phrase_codes,
    region_shares,
    stuff_codes,
)

_WORDS_OF: dict[Language, list[str]] = {
    language: [
        *(noun.in_language(language) for noun in NOUNS),
        *(stuff.in_language(language) for stuff in STUFF),
    ]
    for language in LANGUAGES
}
"""Name of each class, in the order of ids."""
SAID_SHARE = 0.6
"""How often a phrase says an attribute."""


@dataclass(frozen=True, kw_only=True)
class SiglipProgramConfig:
    """What the miniature SigLIP 2 learns from."""

    batch_size: int = 32
    """Scenes per worker and step."""
    phrases_per_step: int = 20
    """Phrases drawn from the batch's things, in both languages, beside the names of all classes."""
    long_share: float = 0.7
    """Share of scenes whose long caption is shown; the short one else."""
    region_weight: float = 0.5
    """Of the region-phrase term, beside 1 for whole captions."""
    patch_weight: float = 10.0
    """Of the patch-name term; the others are sums over texts and would drown it."""
    label_weight: float = 5.0
    """Of the same labels on a linear head over the tokens, which is thrown away: patches learn what is what before
    the text tower can say it."""
    ramp_steps: int = 600
    """Captions and regions come in over this many steps, as the square of the share that is done: patches first learn
    what is where, and what a caption is about is then in sight."""
    translation_weight: float = 0.5
    """Of InfoNCE between names and phrases and their translations."""
    stuff_share: float = 0.3
    """Weight of a stuff patch or region beside a thing's: stuff is most of every picture and soon learned."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(self, "program", 1, "batch_size")
        require_at_least(self, "program", 0, "phrases_per_step", "ramp_steps")
        require_share(self, "program", "long_share", "stuff_share")
        require_at_least(
            self, "program", 0, "region_weight", "patch_weight", "label_weight", "translation_weight"
        )
        require_seed(self, "program")


class SiglipModule(nn.Module):
    """The model, and the scales of the terms that are the training's own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.region_scale = nn.Parameter(torch.tensor(2.302585))
        self.region_bias = nn.Parameter(torch.tensor(-4.0))
        self.patch_scale = nn.Parameter(torch.tensor(2.302585))
        self.label_head = nn.Linear(model.config.vision_config.hidden_size, len(CLASS_NAMES))


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
        self.bank, self.config, self.gather, self.device = bank, config, gather, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        write_word_tokenizer(work_folder, WORDS)
        model = miniature_siglip(len(WORDS), seed=config.seed)
        vision = model.config.vision_config
        check_picture_size(bank.size_hw, patch_size=int(vision.patch_size), side=int(vision.image_size))
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: SiglipModule = SiglipModule(model).to(device)
        self.patch_size = int(vision.patch_size)
        self.most_texts = len(CLASS_NAMES) + config.phrases_per_step
        self.tokenizer = SiglipTokenizer(work_folder, length=model.config.text_config.max_position_embeddings)

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`captions`, `regions`, `patches`, `labels`, `translations` and their weighted `total`."""
        config = self.config
        rows, generator = self.draws(step)
        tokens = self._patch_tokens(rows)
        captions = self._captions(rows, generator)
        phrases, codes = self._phrases(rows, generator)
        texts = self._embed([*captions, *phrases["en"], *phrases["zh"]])
        about, english, chinese = texts.split([len(captions), len(codes), len(codes)])
        model = self.module.model
        losses = {
            "captions": siglip_loss(
                about,
                model.vision_model.head(tokens),
                log_scale=model.logit_scale.squeeze(),
                bias=model.logit_bias.squeeze(),
                gather=self.gather,
            ),
            "regions": self._region_loss(rows, tokens, (english, chinese), codes),
            "translations": infonce_loss(
                english,
                chinese,
                gather=GatherDistinct(codes.to(self.device), most=self.most_texts, gather=self.gather),
            ),
        }
        names = [texts[: len(CLASS_NAMES)] for texts in (english, chinese)]
        losses["patches"], losses["labels"] = self._patch_losses(rows, tokens, names)
        ramp = min(1.0, (step + 1) / config.ramp_steps) ** 2 if config.ramp_steps else 1.0
        losses["total"] = (
            ramp * losses["captions"]
            + ramp * config.region_weight * losses["regions"]
            + config.patch_weight * losses["patches"]
            + config.label_weight * losses["labels"]
            + config.translation_weight * losses["translations"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """A SigLIP checkpoint folder with its tokenizer, float16."""
        save_half(self.module.model, folder)
        write_word_tokenizer(folder, WORDS)

    def _patch_tokens(self, rows: Int[Tensor, " B"]) -> Float[Tensor, "B P D"]:
        views = normalized(self.bank.images[rows].to(self.device).float(), mean=SIGLIP_MEAN, std=SIGLIP_STD)
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
    ) -> tuple[dict[Language, list[str]], Int[Tensor, "T A"]]:
        """The names of all classes, then phrases of things of this batch, in both languages; and what each says."""
        names = torch.full((len(CLASS_NAMES), len(FAMILIES)), ABSENT)
        names[:, 0] = torch.arange(len(CLASS_NAMES))
        things = [thing for row in rows.tolist() for thing in self.bank.things[row]]
        chosen = torch.randperm(len(things), generator=generator)[: self.config.phrases_per_step].tolist()
        draws = torch.rand(len(chosen), len(FAMILIES) - 1, generator=generator) < SAID_SHARE
        seen: dict[tuple[int, ...], dict[Language, str]] = {}
        for place, drawn in zip(chosen, draws.tolist(), strict=True):
            said = {family for family, is_said in zip(FAMILIES[1:], drawn, strict=True) if is_said}
            code = phrase_codes(things[place], said)
            if any(value != ABSENT for value in code[1:]):  # a bare noun is among the names
                seen[tuple(code)] = {lang: region_phrase(things[place], lang, said) for lang in LANGUAGES}
        extra = torch.tensor(list(seen), dtype=torch.int64).reshape(-1, len(FAMILIES))
        spoken = {lang: [*_WORDS_OF[lang], *(pair[lang] for pair in seen.values())] for lang in LANGUAGES}
        return spoken, torch.cat([names, extra])

    def _region_loss(
        self,
        rows: Int[Tensor, " B"],
        tokens: Float[Tensor, "B P D"],
        texts: tuple[Float[Tensor, "T D"], Float[Tensor, "T D"]],
        codes: Int[Tensor, "T A"],
    ) -> Float[Tensor, ""]:
        """Sigmoid over (region, phrase), each region weighed; the sum over phrases keeps SigLIP's footing."""
        bank = self.bank
        things = bank.codes[rows]
        shares = region_shares(
            bank.instances[rows], bank.semantic[rows], patch_size=self.patch_size, num_things=things.shape[1]
        ).flatten(2)
        region_codes = torch.cat([things, stuff_codes(range(NUM_STUFF)).expand(len(rows), -1, -1)], dim=1)
        present = shares.sum(dim=-1) > 0.5  # at least half a patch in sight
        mixing = shares / shares.sum(dim=-1, keepdim=True).clamp_min(1e-6)
        regions = dense_pooling(self.module.model.vision_model.head, tokens, mixing.to(self.device))[present]
        region_codes = region_codes[present]
        truth = matches(codes, region_codes).T.repeat(1, len(texts)).to(self.device)
        similarity = F.normalize(regions, dim=-1) @ F.normalize(torch.cat(texts).float(), dim=-1).T
        logits = similarity * self.module.region_scale.exp() + self.module.region_bias
        each = -F.logsigmoid(torch.where(truth, logits, -logits)).sum(dim=1)
        is_thing = region_codes[:, 0] < NUM_THING_CLASSES
        weight = torch.where(is_thing, 1.0, self.config.stuff_share).to(self.device)
        return (each * weight).sum() / weight.sum()

    def _patch_losses(
        self, rows: Int[Tensor, " B"], tokens: Float[Tensor, "B P D"], names: Sequence[Float[Tensor, "C D"]]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of each patch against the shares that the classes cover: over the class names, mean of the
        languages, and over the linear head.
        """
        shares = class_shares(self.bank.semantic[rows], patch_size=self.patch_size).flatten(2).transpose(1, 2)
        shares = shares.to(self.device)
        dense = F.normalize(dense_pooling(self.module.model.vision_model.head, tokens), dim=-1)
        scale = self.module.patch_scale.exp()
        logits = [dense @ F.normalize(vectors.float(), dim=-1).T * scale for vectors in names]
        logits.append(self.module.label_head(tokens))
        *of_names, of_head = (
            weighted_cross_entropy(each, shares, stuff_share=self.config.stuff_share) for each in logits
        )
        return torch.stack(of_names).mean(), of_head
