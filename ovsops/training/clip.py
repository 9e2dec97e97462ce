"""Teach a miniature CLIP: whole scenes by their captions, and windows of scenes by phrases of what is in them.

InfoNCE between CLS tokens and texts (arXiv:2103.00020). No patch is told what it shows: dense features are what CLIP
has by itself. Captions of whole scenes alone teach so small a model too slowly, so that most views are windows, of
which the encoder sees the patches at their own places and no others, as FLIP drops patches (arXiv:2212.00794). Where
the things are comes from the world's masks. As long as the names of two nouns lie on one spot, no window can learn to
tell the nouns apart, and the other way round: names are kept apart by their translations, and a linear head that is
thrown away gives CLS tokens of windows their first gradient.

Axes: B scenes, W windows, R regions (things, then stuff), P patches of a window, D channels, T texts, A attributes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ovsops.backbones.miniature import miniature_clip, save_half, write_clip_tokenizer
from ovsops.backbones.pixels import CLIP_MEAN, CLIP_STD, normalized
from ovsops.backbones.tokenizers import ClipTokenizer
from ovsops.errors import ConfigError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.infonce import infonce_loss, learned_logit_scale
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, STUFF, Language
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.words import WORDS
from ovsops.text.templates import fill_template, load_templates
from ovsops.training.distinct import GatherDistinct
from ovsops.training.fields import require_at_least, require_seed, require_share, require_weights
from ovsops.training.scenes import (
    ABSENT,
    FAMILIES,
    NUM_STUFF,
    NUM_THING_CLASSES,
    SceneBank,
    StepDraws,
    check_picture_size,
    matches,
    phrase_codes,
    region_shares,
    stuff_codes,
)

_TEMPLATES: dict[Language, tuple[str, ...]] = {
    "en": load_templates("talk2dino_7"),
    "zh": (*load_templates("zh_photo_12"), *load_templates("zh_varied_24")),
}
THING_IN_SIGHT, THING_FILLS, STUFF_FILLS = 0.6, 0.35, 0.6
"""A thing is in a window that shows this share of it, or of which it is this share; stuff by its share alone."""


@dataclass(frozen=True, kw_only=True)
class ClipProgramConfig:
    """What the miniature CLIP learns from."""

    batch_size: int = 32
    """Scenes per worker and step."""
    windows_per_step: int = 96
    """Windows of these scenes."""
    window_sides: tuple[int, ...] = (4, 5, 6, 8)
    """Sides of windows in patches; every step draws one of them."""
    thing_share: float = 0.8
    """Share of windows that lie around a thing; the others lie anywhere."""
    name_share: float = 0.4
    """Share of phrases that are a bare noun."""
    said_share: float = 0.6
    """How often any other phrase says an attribute."""
    template_share: float = 0.5
    """Share of phrases that stand in a template (`a photo of a ...`)."""
    long_share: float = 0.7
    """Share of scenes whose long caption is shown; the short one else."""
    kept_share: float = 0.5
    """Share of a scene's patches that its caption is compared with, drawn anew at every step: the others cost most of
    a step and bring little (FLIP)."""
    windows_only_steps: int = 1200
    """First steps, without captions: whole scenes cost most, and teach little before words mean something."""
    caption_weight: float = 1.0
    window_weight: float = 1.0
    label_weight: float = 1.0
    """Of the class of each window on a linear head over its CLS token, which is thrown away."""
    translation_weight: float = 0.5
    """Of InfoNCE between phrases and their translations."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least(
            self, "program", 2, "batch_size", "windows_per_step"
        )  # one alone contrasts with nothing
        if not self.window_sides or min(self.window_sides) < 1:
            raise ConfigError(
                f"program.window_sides is {self.window_sides}; expected one side or more, each of 1 patch or more"
            )
        require_share(
            self, "program", "thing_share", "name_share", "said_share", "template_share", "long_share"
        )
        if not 0 < self.kept_share <= 1:
            raise ConfigError(f"program.kept_share is {self.kept_share}; it must lie in (0, 1]")
        require_at_least(self, "program", 0, "windows_only_steps")
        require_weights(
            self, "program", "caption_weight", "window_weight", "label_weight", "translation_weight"
        )
        require_seed(self, "program")


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of one side, and what is in them."""

    rows: Int[Tensor, " W"]
    """Scene of the batch."""
    patches: Int[Tensor, "W P"]
    """Places of its patches on the grid, row by row."""
    about: Int[Tensor, " W"]
    """The region that its phrase is about."""
    shown: Bool[Tensor, "W R"]
    """Regions that count as being in it; the one that it is about always does."""


class ClipModule(nn.Module):
    """The model and the head that only training needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.label_head = nn.Linear(model.config.vision_config.hidden_size, len(CLASS_NAMES))


class ClipProgram:
    """InfoNCE on CLS tokens of scenes and of windows over batches of a bank."""

    def __init__(
        self,
        bank: SceneBank,
        config: ClipProgramConfig,
        work_folder: Path,
        *,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        self.bank, self.config, self.gather, self.device = bank, config, gather, device
        self.draws = StepDraws.of(bank, config, gather, world_size)
        write_clip_tokenizer(work_folder, WORDS)
        self.model = miniature_clip(len(WORDS), seed=config.seed)
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            self.module: ClipModule = ClipModule(self.model).to(device)
        vision = self.model.config.vision_config
        self.patch_size = int(vision.patch_size)
        self.grid = int(vision.image_size) // self.patch_size
        check_picture_size(bank.size_hw, patch_size=self.patch_size, side=int(vision.image_size))
        if max(config.window_sides) > self.grid:
            raise ConfigError(
                f"program.window_sides {config.window_sides} reach over the grid of {self.grid} patches"
            )
        self.tokenizer = ClipTokenizer(
            work_folder, length=self.model.config.text_config.max_position_embeddings
        )

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """`windows`, `labels`, `translations`, `captions` (0 in the first `windows_only_steps`) and their weighted
        `total`.
        """
        config = self.config
        rows, generator = self.draws(step)
        views = normalized(self.bank.images[rows].to(self.device).float(), mean=CLIP_MEAN, std=CLIP_STD)
        embedded = self.model.vision_model.embeddings(views)
        scale = learned_logit_scale(self.model.logit_scale)
        losses = self._window_losses(rows, embedded, scale, generator)
        losses["captions"] = torch.zeros((), device=self.device)
        if step >= config.windows_only_steps:
            texts = self._embed(self._captions(rows, generator))
            scenes = self._project(self._cls(kept_tokens(embedded, config.kept_share, generator)))
            losses["captions"] = infonce_loss(texts, scenes, logit_scale=scale, gather=self.gather)
        losses["total"] = (
            config.window_weight * losses["windows"]
            + config.label_weight * losses["labels"]
            + config.translation_weight * losses["translations"]
            + config.caption_weight * losses["captions"]
        )
        return losses

    def after_step(self, step: int) -> None:
        """Nothing follows a step."""

    def export(self, folder: Path) -> None:
        """A CLIP checkpoint folder with its tokenizer, float16."""
        save_half(self.model, folder)
        write_clip_tokenizer(folder, WORDS)

    def _cls(self, embedded: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """The CLS token after all blocks and the last norm, of embedded tokens of which the first is CLS."""
        vision = self.model.vision_model
        hidden = vision.encoder(inputs_embeds=vision.pre_layrnorm(embedded)).last_hidden_state
        normed: Tensor = vision.post_layernorm(hidden[:, 0])
        return normed

    def _project(self, cls_tokens: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
        projected: Tensor = self.model.visual_projection(cls_tokens)
        return projected

    def _embed(self, texts: list[str]) -> Float[Tensor, "T E"]:
        rows = self.tokenizer(texts)
        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[self.tokenizer.eos] * (longest - len(row))] for row in rows])
        pooled = self.model.text_model(input_ids=ids.to(self.device)).pooler_output
        projected: Tensor = self.model.text_projection(pooled)
        return projected

    def _captions(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> list[str]:
        draws = torch.rand(len(rows), 2, generator=generator).tolist()
        return [
            self.bank.captions[LANGUAGES[int(a < 0.5)], "long" if b < self.config.long_share else "short"][
                int(row)
            ]
            for row, (a, b) in zip(rows, draws, strict=True)
        ]

    def _window_losses(
        self,
        rows: Int[Tensor, " B"],
        embedded: Float[Tensor, "B N D"],
        scale: Float[Tensor, ""],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """InfoNCE between windows and their phrases, mean of the languages; a phrase is right for every window that
        shows what it says. The class of each window. InfoNCE between phrases and their translations.
        """
        windows = self.windows(rows, generator)
        phrases, codes = self.phrases(rows, windows, generator)
        cut = embedded[windows.rows[:, None], windows.patches + 1]
        cls_tokens = self._cls(torch.cat([embedded[windows.rows, :1], cut], dim=1))
        seen = self._project(cls_tokens)
        region_codes = self._region_codes(rows)[windows.rows]  # W R A
        is_true = matches(codes, region_codes.flatten(0, 1)).unflatten(1, windows.shown.shape)
        truth = (is_true & windows.shown).any(dim=2).to(self.device)
        texts = self._embed([text for language in LANGUAGES for text in phrases[language]])
        english, chinese = texts.chunk(len(LANGUAGES))
        each = [contrast_with_truth(part, seen, truth, logit_scale=scale) for part in (english, chinese)]
        classes = region_codes[torch.arange(len(windows.about)), windows.about, 0].to(self.device)
        return {
            "windows": torch.stack(each).mean(),
            "labels": F.cross_entropy(self.module.label_head(cls_tokens).float(), classes),
            "translations": infonce_loss(
                english,
                chinese,
                logit_scale=scale,
                gather=GatherDistinct(
                    codes.to(self.device), most=self.config.windows_per_step, gather=self.gather
                ),
            ),
        }

    def windows(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> Windows:
        """Windows of one side, around things of these scenes and anywhere, and what each shows."""
        config, bank = self.config, self.bank
        num_things, count = bank.codes.shape[1], config.windows_per_step
        side = config.window_sides[int(torch.randint(len(config.window_sides), (), generator=generator))]
        shares = region_shares(
            bank.instances[rows], bank.semantic[rows], patch_size=self.patch_size, num_things=num_things
        )  # B R H W
        areas = shares.sum(dim=(2, 3))
        things = areas[:, :num_things].nonzero()
        is_around = torch.rand(count, generator=generator) < (config.thing_share if len(things) else 0.0)
        scenes = torch.randint(len(rows), (count,), generator=generator)
        corners = torch.randint(self.grid - side + 1, (count, 2), generator=generator)
        jitter = (torch.rand(count, 2, generator=generator) - 0.5) * side / 2
        chosen = torch.zeros(count, dtype=torch.int64)
        if len(things):
            scene, chosen = things[torch.randint(len(things), (count,), generator=generator)].unbind(dim=1)
            around = (_centres(shares[scene, chosen]) - side / 2 + jitter).round().long()
            corners = torch.where(is_around[:, None], around.clamp(0, self.grid - side), corners)
            scenes = torch.where(is_around, scene, scenes)
        steps = torch.arange(side)
        down, right = corners[:, :1] + steps, corners[:, 1:] + steps
        patches = (down[:, :, None] * self.grid + right[:, None]).flatten(1)
        seen = shares.flatten(2)[scenes[:, None], :, patches].sum(dim=1)  # W R, in patches
        about = torch.where(is_around, chosen, seen.argmax(dim=1))
        shown = _is_shown(seen, areas[scenes], num_patches=side**2, num_things=num_things)
        shown[torch.arange(count), about] = True
        return Windows(rows=scenes, patches=patches, about=about, shown=shown)

    def phrases(
        self, rows: Int[Tensor, " B"], windows: Windows, generator: torch.Generator
    ) -> tuple[dict[Language, list[str]], Int[Tensor, "T A"]]:
        """What the windows are about, in both languages, no phrase twice; and what each says."""
        config = self.config
        num_things = self.bank.codes.shape[1]
        draws = torch.rand(len(windows.rows), 3 + len(FAMILIES), generator=generator).tolist()
        seen: dict[tuple[int, ...], dict[Language, str]] = {}
        for scene, region, draw in zip(windows.rows.tolist(), windows.about.tolist(), draws, strict=True):
            bare, is_framed, places = draw[0], draw[1] < config.template_share, draw[2:4]
            if region >= num_things:
                stuff = STUFF[region - num_things]
                code = [NUM_THING_CLASSES + region - num_things, *[ABSENT] * (len(FAMILIES) - 1)]
                plain = {language: stuff.in_language(language) for language in LANGUAGES}
            else:
                thing = self.bank.things[int(rows[scene])][region]
                said = {
                    family
                    for family, chance in zip(FAMILIES[1:], draw[4:], strict=True)
                    if bare >= config.name_share and chance < config.said_share
                }
                code = phrase_codes(thing, said)
                plain = {language: region_phrase(thing, language, said) for language in LANGUAGES}
            seen.setdefault(
                tuple(code),
                {
                    language: _in_template(plain[language], language, place) if is_framed else plain[language]
                    for language, place in zip(LANGUAGES, places, strict=True)
                },
            )
        spoken = {language: [pair[language] for pair in seen.values()] for language in LANGUAGES}
        return spoken, torch.tensor(list(seen), dtype=torch.int64)

    def _region_codes(self, rows: Int[Tensor, " B"]) -> Int[Tensor, "B R A"]:
        stuff = stuff_codes(range(NUM_STUFF)).expand(len(rows), -1, -1)
        return torch.cat([self.bank.codes[rows], stuff], dim=1)


def _centres(planes: Float[Tensor, "W H W2"]) -> Float[Tensor, "W 2"]:
    """Centres of mass, row and column, in patches."""
    shares = planes / planes.sum(dim=(1, 2), keepdim=True)
    down, right = (torch.arange(length) + 0.5 for length in planes.shape[1:])
    return torch.stack([shares.sum(dim=2) @ down, shares.sum(dim=1) @ right], dim=1)


def _is_shown(
    seen: Float[Tensor, "W R"], areas: Float[Tensor, "W R"], *, num_patches: int, num_things: int
) -> Bool[Tensor, "W R"]:
    """Which regions count as being in a window of which they cover `seen` patches and of the scene `areas`."""
    fills = seen / num_patches
    of_things = (seen >= THING_IN_SIGHT * areas.clamp_min(1e-6)) | (fills >= THING_FILLS)
    is_thing = torch.arange(seen.shape[1]) < num_things
    return torch.where(is_thing, of_things, fills >= STUFF_FILLS)


def kept_tokens(
    embedded: Float[Tensor, "B N D"], share: float, generator: torch.Generator
) -> Float[Tensor, "B K D"]:
    """The CLS token and a share of the patches, drawn for each scene."""
    batch, num_patches = len(embedded), embedded.shape[1] - 1
    count = max(1, round(share * num_patches))
    order = torch.rand(batch, num_patches, generator=generator).argsort(dim=1)[:, :count] + 1
    chosen = torch.cat([torch.zeros(batch, 1, dtype=order.dtype), order], dim=1)
    return embedded[torch.arange(batch)[:, None], chosen]


def contrast_with_truth(
    texts: Float[Tensor, "T E"],
    images: Float[Tensor, "W E"],
    truth: Bool[Tensor, "T W"],
    *,
    logit_scale: float | Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """InfoNCE where a text is true of some images and an image has some true texts: each target is uniform over them.

    Texts that are true of nothing, and images of which nothing is true, are left out.
    """
    logits = F.normalize(texts.float(), dim=-1) @ F.normalize(images.float(), dim=-1).T * logit_scale
    return (_cross_entropy(logits, truth) + _cross_entropy(logits.T, truth.T)) / 2


def _cross_entropy(logits: Float[Tensor, "N M"], truth: Bool[Tensor, "N M"]) -> Float[Tensor, ""]:
    num_true = truth.sum(dim=1)
    each = -(truth * logits.log_softmax(dim=1)).sum(dim=1)[num_true > 0] / num_true[num_true > 0]
    return each.mean()


def _in_template(phrase: str, language: Language, place: float) -> str:
    """The phrase in a template of the language; `place` in [0, 1) says in which."""
    templates = _TEMPLATES[language]
    return fill_template(templates[math.floor(place * len(templates))], phrase)
