"""Scenes of the miniature world in memory, and the batches that a step draws from them.

Axes: N scenes, B scenes of a batch, T things of a scene (the most that any has), A attributes, h w pixels,
H W patch grid, R regions, C classes.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError, TrainingError
from ovsops.losses.gather import Gather
from ovsops.miniature.attributes import (
    CLASS_NAMES,
    COLOURS,
    LANGUAGES,
    MATERIALS,
    NOUNS,
    PATTERNS,
    SIZES,
    STUFF,
)
from ovsops.miniature.captions import Described, Length, scene_caption
from ovsops.miniature.scene import Scene
from ovsops.miniature.truth import SceneTruth

NUM_CLASSES = len(CLASS_NAMES)
LENGTHS: tuple[Length, ...] = ("short", "long")
ABSENT = -1
_FAMILIES = {"noun": NOUNS, "colour": COLOURS, "pattern": PATTERNS, "material": MATERIALS, "size": SIZES}
_CODES = {family: {value.name: i for i, value in enumerate(values)} for family, values in _FAMILIES.items()}
FAMILIES = tuple(_FAMILIES)
FAMILY_SIZES = tuple(len(values) for values in _FAMILIES.values())
NUM_THING_CLASSES, NUM_STUFF = len(NOUNS), len(STUFF)


def thing_codes(thing: Described) -> list[int]:
    """Place of each attribute of a thing in its family, in the order of FAMILIES."""
    return [_CODES[family][getattr(thing, family)] for family in FAMILIES]


def phrase_codes(thing: Described, said: Collection[str]) -> list[int]:
    """What a phrase about a thing says: its noun and the attributes in `said` that have a word."""
    codes = thing_codes(thing)
    for place, family in enumerate(FAMILIES[1:], start=1):
        has_word = bool(_FAMILIES[family][codes[place]].en)  # "plain", "matte" and a medium size go unsaid
        if family not in said or not has_word:
            codes[place] = ABSENT
    return codes


@dataclass(frozen=True)
class SceneBank:
    """Scenes as tensors, with the words that go with them."""

    images: UInt8[Tensor, "N 3 h w"]
    instances: UInt8[Tensor, "N h w"]
    """0, or the place of a thing in its scene, from 1."""
    semantic: UInt8[Tensor, "N h w"]
    """Class ids from 1."""
    codes: Int[Tensor, "N T A"]
    """Attributes of each thing; ABSENT where a scene has fewer things."""
    things: tuple[tuple[Described, ...], ...]
    captions: dict[tuple[str, str], list[str]]
    """By (language, "short" or "long")."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of every scene in pixels."""
        return int(self.images.shape[2]), int(self.images.shape[3])


def check_picture_size(size_hw: tuple[int, int], *, patch_size: int, side: int | None = None) -> None:
    """Pictures must be `side` pixels high and wide where a model knows no other places, and whole patches elsewhere.

    Raises ConfigError; without this check a strip that fills no patch would be dropped in silence.
    """
    height, width = size_hw
    if side is not None and (height, width) != (side, side):
        raise ConfigError(
            f"the scenes are {height}x{width} pixels (h x w), this program learns from {side}x{side}: "
            f"set input.world.size to {side}, or give shards of that size"
        )
    if height % patch_size or width % patch_size:
        raise ConfigError(
            f"the scenes are {height}x{width} pixels (h x w), which patches of {patch_size} do not fill: "
            "set input.world.size to a multiple, or give shards of such a size"
        )


def bank_of(scenes: Iterable[Scene]) -> SceneBank:
    """Stack scenes of one size. Raises TrainingError when there is none."""
    return _stacked(
        (
            scene.image,
            scene.instances,
            scene.semantic,
            scene.things,
            {
                (language, length): scene_caption(scene, language, length)
                for language in LANGUAGES
                for length in LENGTHS
            },
        )
        for scene in scenes
    )


def bank_of_truths(scenes: Iterable[tuple[np.ndarray, SceneTruth]]) -> SceneBank:
    """Stack decoded pictures (uint8 [h w 3]) of one size with their truths. Raises TrainingError when there is none."""
    return _stacked(
        (
            pixels,
            truth.instances,
            truth.semantic,
            truth.things,
            {
                (language, length): truth.captions[language][length]
                for language in LANGUAGES
                for length in LENGTHS
            },
        )
        for pixels, truth in scenes
    )


_Parts = tuple[np.ndarray, np.ndarray, np.ndarray, Sequence[Described], Mapping[tuple[str, str], str]]


def _stacked(scenes: Iterable[_Parts]) -> SceneBank:
    images, instances, semantic, things = [], [], [], []
    captions: dict[tuple[str, str], list[str]] = {
        (language, length): [] for language in LANGUAGES for length in LENGTHS
    }
    for picture, instance_map, class_map, of_scene, said in scenes:
        images.append(torch.from_numpy(picture).permute(2, 0, 1).contiguous())
        instances.append(torch.from_numpy(instance_map))
        semantic.append(torch.from_numpy(class_map))
        things.append(tuple(of_scene))
        for kind, sentences in captions.items():
            sentences.append(said[kind])
    if not images:
        raise TrainingError("no scene to train on: the shards are empty, or every scene was left out")
    most = max(1, *(len(t) for t in things))
    codes = torch.full((len(things), most, len(FAMILIES)), ABSENT, dtype=torch.int64)
    for n, of_one in enumerate(things):
        for t, thing in enumerate(of_one):
            codes[n, t] = torch.tensor(thing_codes(thing))
    return SceneBank(
        torch.stack(images),
        torch.stack(instances),
        torch.stack(semantic),
        codes,
        tuple(things),
        captions,
    )


def batch_indices(
    step: int, *, num_scenes: int, batch_size: int, seed: int, rank: int = 0, world_size: int = 1
) -> Int[Tensor, " B"]:
    """Which scenes this worker sees at `step`: a new order every epoch, no scene twice in one.

    The workers' slices together are the batch that one worker of batch_size * world_size would see.
    """
    whole = batch_size * world_size
    per_epoch = num_scenes // whole
    if not per_epoch:
        raise TrainingError(
            f"{num_scenes} scenes do not fill one batch of {whole}; draw more scenes or take a smaller batch"
        )
    epoch, place = divmod(step, per_epoch)
    order = torch.randperm(num_scenes, generator=step_generator(seed, epoch))
    start = place * whole + rank * batch_size
    return order[start : start + batch_size]


@runtime_checkable
class DrawnBatches(Protocol):
    """What a program's settings say of its batches."""

    @property
    def batch_size(self) -> int:
        """Scenes per worker and step."""

    @property
    def seed(self) -> int:
        """Of orders and draws."""


@dataclass(frozen=True, kw_only=True)
class StepDraws:
    """What a worker draws for a step: its scenes, and random numbers of its own."""

    num_scenes: int
    batch_size: int
    """Scenes per worker and step."""
    seed: int
    rank: int = 0
    world_size: int = 1

    @classmethod
    def of(cls, bank: SceneBank, config: "DrawnBatches", gather: Gather, world_size: int) -> "StepDraws":
        """Those of a program over a bank."""
        return cls(
            num_scenes=len(bank),
            batch_size=config.batch_size,
            seed=config.seed,
            rank=gather.rank,
            world_size=world_size,
        )

    def __call__(self, step: int) -> tuple[Int[Tensor, " B"], torch.Generator]:
        """Places of the scenes, as `batch_indices` says, and a generator that no other step or worker has."""
        rows = batch_indices(
            step,
            num_scenes=self.num_scenes,
            batch_size=self.batch_size,
            seed=self.seed,
            rank=self.rank,
            world_size=self.world_size,
        )
        return rows, step_generator(self.seed + 1, step * self.world_size + self.rank)


def step_generator(seed: int, step: int) -> torch.Generator:
    """Random numbers that depend on seed and step alone, so that a resumed run draws the same."""
    return torch.Generator().manual_seed((seed * 1_000_003 + step) % 2**63)


def class_shares(
    semantic: UInt8[Tensor, "B h w"], *, patch_size: int, num_classes: int = NUM_CLASSES
) -> Float[Tensor, "B C H W"]:
    """Share of each patch that each class covers; class id c is plane c - 1."""
    return F.avg_pool2d(class_planes(semantic, num_classes=num_classes), patch_size)


def region_shares(
    instances: UInt8[Tensor, "B h w"], semantic: UInt8[Tensor, "B h w"], *, patch_size: int, num_things: int
) -> Float[Tensor, "B R H W"]:
    """Share of each patch that each thing covers, then that each stuff covers; absent regions are zero."""
    return F.avg_pool2d(region_planes(instances, semantic, num_things=num_things), patch_size)


def class_planes(
    semantic: UInt8[Tensor, "B h w"], *, num_classes: int = NUM_CLASSES
) -> Float[Tensor, "B C h w"]:
    """1 where a pixel is of a class; class id c is plane c - 1."""
    return F.one_hot(semantic.long(), num_classes + 1)[..., 1:].permute(0, 3, 1, 2).float()


def region_planes(
    instances: UInt8[Tensor, "B h w"], semantic: UInt8[Tensor, "B h w"], *, num_things: int
) -> Float[Tensor, "B R h w"]:
    """1 where a pixel is of a thing, then where it is of a stuff."""
    things = F.one_hot(instances.long(), num_things + 1)[..., 1:]
    stuff = F.one_hot((semantic.long() - NUM_THING_CLASSES).clamp_min(0), NUM_STUFF + 1)[..., 1:]
    return torch.cat([things, stuff], dim=-1).permute(0, 3, 1, 2).float()


def tight_boxes(planes: Bool[Tensor, "B R h w"]) -> Float[Tensor, "B R 4"]:
    """Corners of the tight boxes of planes, as shares of the sides; 0 0 1 1 where a plane is empty."""
    sides = []
    for axis in (2, 3):  # columns, then rows
        line = planes.any(dim=axis).float()
        length = line.shape[2]
        sides.append((line.argmax(dim=2) / length, 1 - line.flip(2).argmax(dim=2) / length))
    (x1, x2), (y1, y2) = sides
    return torch.stack([x1, y1, x2, y2], dim=2)


def matches(phrases: Int[Tensor, "P A"], regions: Int[Tensor, "R A"]) -> Tensor:
    """Bool [P R]: whether a region has everything that the phrase says; ABSENT in a phrase says nothing."""
    said = phrases[:, None] != ABSENT
    return (~said | (phrases[:, None] == regions[None])).all(dim=-1)


def stuff_codes(indices: Sequence[int]) -> Int[Tensor, "R A"]:
    """Regions of stuff in the code of things: nouns beyond the things' own, no attribute."""
    codes = torch.full((len(indices), len(FAMILIES)), ABSENT - 1, dtype=torch.int64)
    codes[:, 0] = NUM_THING_CLASSES + torch.tensor(list(indices), dtype=torch.int64)
    return codes
