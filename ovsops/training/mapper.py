"""Teach the text-to-DINO mapper. Towers stay frozen: what is learned is psi, and what stands around it.

With the config's defaults this is Talk2DINO (ICCV 2025, sections 3.2-3.3): psi of a caption meets, in every image,
the attention head that the image's own caption is closest to.

Axes: B scenes of this worker, P patches, D DINO channels, E text and SigLIP channels, C classes, F phrases,
R regions, A attributes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ovsops.errors import ConfigError
from ovsops.losses.class_distillation import class_distillation_loss, class_similarity, sample_at_crops
from ovsops.losses.diversity import group_variance, translation_loss
from ovsops.losses.ema import ema_update
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.infonce import infonce_loss, infonce_of_pairs, learned_logit_scale
from ovsops.losses.masked import sample_block_masks
from ovsops.losses.siglip import siglip_loss
from ovsops.mapper.alignment import choose_heads, head_embeddings
from ovsops.miniature.attributes import LANGUAGES
from ovsops.training.calibration import fit_affine
from ovsops.training.mapper_config import TERMS, MapperProgramConfig
from ovsops.training.mapper_features import SAID_SETS, GridFeatures, MapperFeatures
from ovsops.training.mapper_module import MapperConstants, MapperModule, load_learned, save_learned
from ovsops.training.mapper_terms import patch_loss, region_loss
from ovsops.training.mapper_views import LiveViews, ViewTokens, random_boxes
from ovsops.training.scenes import ABSENT, LENGTHS, batch_indices, matches, step_generator

_CAPTIONS, _GRIDS, _NAMES, _PHRASES, _CROPS, _MASKS = range(1, 7)
"""Streams of random numbers: a term that is switched on or off leaves what the others draw as it was."""
_CALIBRATION_SCENES = 256


@dataclass(frozen=True)
class Batch:
    """What the terms of one step share."""

    step: int
    rows: Int[Tensor, " B"]
    grid: int
    features: GridFeatures
    patches: Float[Tensor, "B P D"]
    """DINO's tokens, with the learned residual where there is one."""
    captions: Float[Tensor, "B E"]
    translations: Float[Tensor, "B E"]
    languages: Int[Tensor, " B"]
    """Place of each caption's language in LANGUAGES."""
    texts: Float[Tensor, "B D"]
    """The captions, mapped."""
    heads: Float[Tensor, "B D"]
    """The head of each image that its own caption chooses."""


class MapperProgram:
    """Terms over batches of cached features."""

    def __init__(
        self,
        features: MapperFeatures,
        config: MapperProgramConfig,
        *,
        views: LiveViews | None = None,
        start: Path | None = None,
        gather: Gather = no_gather,
        world_size: int = 1,
        device: str = "cpu",
    ) -> None:
        """`views` are needed for distillation; `start` is a folder that another program exported."""
        check_inputs(features, config, views)
        self.features, self.config, self.views = features, config, views
        self.gather, self.world_size, self.device = gather, world_size, device
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            module = MapperModule(config, text_width=features.text_width, dino_width=features.dino_width)
        if start is not None:
            load_learned(module, start)
        self.module: MapperModule = module.to(device)
        captions = features.texts.captions
        self.captions = torch.stack(
            [torch.stack([captions[language, length] for length in LENGTHS]) for language in LANGUAGES]
        )  # L 2 N E
        self.spoken = torch.tensor([LANGUAGES.index(language) for language in config.languages])

    def losses(self, step: int) -> Mapping[str, Tensor]:
        """Every term that has a weight, and their weighted `total`."""
        batch = self._batch(step)
        terms: dict[str, Callable[[], Tensor]] = {
            "infonce": partial(self._infonce, batch),
            "sigmoid": partial(self._sigmoid, batch),
            "regions": partial(self._regions, batch),
            "patches": partial(self._patches, batch),
            "distillation": partial(self._distillation, batch),
            "masked": partial(self._masked, batch),
            "translation": partial(self._translation, batch),
            "groups": partial(self._groups, batch),
        }
        losses = {name: terms[name]() for name in TERMS if self.config.weight(name)}
        losses["total"] = torch.stack(
            [self.config.weight(name) * loss for name, loss in losses.items()]
        ).sum()
        return losses

    def after_step(self, step: int) -> None:
        """The teacher follows."""
        if self.config.is_distilled:
            ema_update(self.module.teacher, self.module.student, self.config.teacher_momentum)

    def export(self, folder: Path) -> None:
        """`mapper.safetensors`, `mapper_constants.json`, and `fusion.safetensors` where W_f is learned."""
        save_learned(self.module, folder, self.constants())

    def constants(self) -> MapperConstants:
        """Those of the sigmoid term where it is on, and those of SigLIP's patches where the features hold them."""
        numbers = {}
        if self.config.sigmoid_weight:
            numbers["sigmoid_temperature"] = float((-self.module.sigmoid_log_scale.detach()).exp())
            numbers["sigmoid_bias"] = float(self.module.sigmoid_bias.detach())
        grid = self.features.grid(self.config.grids[0])
        if grid.aligned is not None:
            with torch.no_grad():
                rows = slice(0, _CALIBRATION_SCENES)
                aligned = grid.aligned[rows].to(self.device).float()
                tokens = grid.patch_tokens[rows].to(self.device).float()
                names = self.features.texts.names[self.spoken].flatten(0, 1).to(self.device)
                dino = class_similarity(
                    self.module.student.patches(tokens, aligned)[:, None], self.module.student.texts(names)
                )
                affine = fit_affine(class_similarity(aligned[:, None], names), dino)
            numbers |= {"siglip_scale": affine.scale, "siglip_shift": affine.shift}
        return MapperConstants(**numbers)

    def _batch(self, step: int) -> Batch:
        config = self.config
        rows = batch_indices(
            step,
            num_scenes=len(self.features),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=self.gather.rank,
            world_size=self.world_size,
        )
        draws = self._own_draws(step, _CAPTIONS, 2)
        languages = self.spoken[(draws[:, 0] * len(self.spoken)).long()]
        lengths = (draws[:, 1] < config.long_share).long()
        captions = self.captions[languages, lengths, rows].to(self.device)
        translations = self.captions[(languages + 1) % len(LANGUAGES), lengths, rows].to(self.device)
        place = torch.randint(len(config.grids), (), generator=self._generator(step, _GRIDS))
        grid = config.grids[int(place)]
        features = self.features.grid(grid)
        student = self.module.student
        patches = student.patches(*self._tokens(features, rows))
        texts = student.texts(captions)
        logits = features.cls_logits[rows].to(self.device).float()
        heads, _ = choose_heads(head_embeddings(patches, logits), texts)
        return Batch(
            step,
            rows,
            grid,
            features,
            patches,
            captions,
            translations,
            languages.to(self.device),
            texts,
            heads,
        )

    def _infonce(self, batch: Batch) -> Float[Tensor, ""]:
        return infonce_loss(
            batch.texts,
            batch.heads,
            logit_scale=self.config.logit_scale,
            reduction=self.config.reduction,
            gather=self.gather,
        )

    def _sigmoid(self, batch: Batch) -> Float[Tensor, ""]:
        return siglip_loss(
            batch.texts,
            batch.heads,
            log_scale=self.module.sigmoid_log_scale,
            bias=self.module.sigmoid_bias,
            gather=self.gather,
        )

    def _translation(self, batch: Batch) -> Float[Tensor, ""]:
        return translation_loss(batch.texts, self.module.student.texts(batch.translations))

    def _groups(self, batch: Batch) -> Float[Tensor, ""]:
        each = infonce_of_pairs(
            batch.texts, batch.heads, logit_scale=self.config.logit_scale, gather=self.gather
        )
        nouns = self.features.region_codes[batch.rows, 0, 0].to(self.device)  # ABSENT is in no group
        return group_variance(
            each, batch.languages if self.config.groups == "language" else nouns, gather=self.gather
        )

    def _regions(self, batch: Batch) -> Float[Tensor, ""]:
        """Regions against the class names and one phrase a scene, those of all workers."""
        table, rows = self.features.texts, batch.rows
        draws = self._own_draws(batch.step, _PHRASES, 3)
        codes = self.features.region_codes[rows]  # B R A
        num_things = table.phrase_of.shape[2]
        counts = (codes[:, :num_things, 0] != ABSENT).sum(dim=1).clamp_min(1)
        things = (draws[:, 0] * counts).long()
        languages = self.spoken[(draws[:, 1] * len(self.spoken)).long()]
        phrases = table.phrase_of[languages, rows, things, (draws[:, 2] * len(SAID_SETS)).long()]
        phrases = phrases.clamp_min(
            0
        )  # a scene without things shows the first phrase, which is true elsewhere
        names = torch.full((table.names.shape[1], codes.shape[2]), ABSENT)
        names[:, 0] = torch.arange(len(names))
        said = torch.cat([names, self.gather(table.phrase_codes[phrases].to(self.device)).cpu()])
        student = self.module.student
        texts = torch.cat(
            [
                student.texts(self._names(batch.step)),
                self.gather(student.texts(table.phrases[phrases].to(self.device))),
            ]
        )
        return region_loss(
            batch.patches,
            batch.features.region_shares[rows].to(self.device).float(),
            codes.to(self.device),
            texts,
            matches(said, codes.flatten(0, 1)).T.unflatten(0, codes.shape[:2]).to(self.device),
            scale=learned_logit_scale(self.module.region_log_scale),
            bias=self.module.region_bias,
            stuff_share=self.config.stuff_share,
            gather=self.gather,
        )

    def _patches(self, batch: Batch) -> Float[Tensor, ""]:
        return patch_loss(
            batch.patches,
            batch.features.class_shares[batch.rows].to(self.device).float(),
            self.module.student.texts(self._names(batch.step)),
            scale=learned_logit_scale(self.module.patch_log_scale),
            stuff_share=self.config.stuff_share,
            gather=self.gather,
        )

    def _distillation(self, batch: Batch) -> Float[Tensor, ""]:
        """Local crops say of the captions what the teacher's whole view says at the same places."""
        config = self.config
        whole = self._teacher_maps(batch)
        rows, count = batch.rows[: config.distilled_scenes], config.num_crops
        boxes = random_boxes(
            self.world_size * len(rows) * count,
            scale=config.crop_scale,
            generator=self._generator(batch.step, _CROPS),
        )
        boxes = boxes[self.gather.rank * len(rows) * count :][: len(rows) * count]
        assert self.views is not None, "checked when the program was built"
        seen = self.views.crops(
            rows.repeat_interleave(count), boxes, config.crop_grid, with_siglip=config.learn_fusion
        )
        side = (config.crop_grid, config.crop_grid)
        target = sample_at_crops(whole.repeat_interleave(count, dim=0), boxes.to(self.device), side)
        return self._distilled(batch, seen, target, mask=None)

    def _masked(self, batch: Batch) -> Float[Tensor, ""]:
        """Masked patches say of the captions what the teacher, who sees them, says."""
        rows = batch.rows[: self.config.distilled_scenes]
        masks = sample_block_masks(
            self.world_size * len(rows),
            (batch.grid, batch.grid),
            generator=self._generator(batch.step, _MASKS),
            share=self.config.masked_share,
        )[self.gather.rank * len(rows) :][: len(rows)]
        assert self.views is not None, "checked when the program was built"
        seen = self.views.masked(rows, masks, with_siglip=self.config.learn_fusion)
        return self._distilled(batch, seen, self._teacher_maps(batch), mask=masks.to(self.device))

    def _distilled(
        self, batch: Batch, seen: ViewTokens, target: Tensor, *, mask: Tensor | None
    ) -> Float[Tensor, ""]:
        student = self.module.student
        grid = seen.patch_tokens.shape[1:3]
        aligned = None if seen.aligned is None else seen.aligned.flatten(1, 2)
        tokens = student.patches(seen.patch_tokens.flatten(1, 2), aligned).unflatten(1, grid)
        return class_distillation_loss(
            class_similarity(tokens, batch.texts, gather=self.gather),
            target,
            mask=mask,
            temperature=self.config.distillation_temperature,
        )

    @torch.no_grad()
    def _teacher_maps(self, batch: Batch) -> Float[Tensor, "B F H W"]:
        """What the teacher's whole view says of every caption."""
        rows, teacher = batch.rows[: self.config.distilled_scenes], self.module.teacher
        tokens = teacher.patches(*self._tokens(batch.features, rows)).unflatten(1, (batch.grid, batch.grid))
        return class_similarity(tokens, teacher.texts(batch.captions), gather=self.gather)

    def _tokens(
        self, features: GridFeatures, rows: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B P E"] | None]:
        aligned = None
        if self.config.learn_fusion:
            assert features.aligned is not None, "checked when the program was built"
            aligned = features.aligned[rows].to(self.device).float()
        return features.patch_tokens[rows].to(self.device).float(), aligned

    def _names(self, step: int) -> Float[Tensor, "C E"]:
        """The class names, in one language for the whole batch."""
        draw = torch.randint(len(self.spoken), (), generator=self._generator(step, _NAMES))
        return self.features.texts.names[self.spoken[draw]].to(self.device)

    def _generator(self, step: int, stream: int) -> torch.Generator:
        return step_generator(self.config.seed * 100 + stream, step)

    def _own_draws(self, step: int, stream: int, count: int) -> Float[Tensor, "B count"]:
        """This worker's rows of the whole batch's draws, so that workers together draw what one worker would."""
        size = self.config.batch_size
        draws = torch.rand(self.world_size * size, count, generator=self._generator(step, stream))
        return draws[self.gather.rank * size :][:size]


def check_inputs(features: MapperFeatures, config: MapperProgramConfig, views: LiveViews | None) -> None:
    """Raises ConfigError when a program with this config would miss something."""
    for side in config.grids:
        if features.grid(side).aligned is None and config.learn_fusion:
            raise ConfigError(
                f"program.learn_fusion: the features of grid {side} hold no SigLIP patches; "
                "compute them with a SigLIP tower"
            )
    if not config.is_distilled:
        return
    if views is None:
        raise ConfigError(
            "program: distillation_weight and masked_weight need views of the pictures; pass LiveViews, or set both "
            "to 0"
        )
    if config.learn_fusion and views.siglip is None:
        raise ConfigError(
            "program.learn_fusion with distillation: the views need a SigLIP tower too; pass one"
        )
