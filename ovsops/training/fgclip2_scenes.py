"""Batches of FG-CLIP 2's training from scenes of the miniature world.

Every step draws which attributes its phrases say, the same for all regions: then two phrases are true of each other's
regions exactly if they are equal, and no region is pushed away from a text that is true of it.
"""

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from ovsops.errors import TrainingError
from ovsops.miniature.attributes import LANGUAGES, STUFF, Language
from ovsops.miniature.region_truth import (
    CHANGED,
    Attribute,
    Located,
    explicit_phrase,
    region_truth,
    values_of,
)
from ovsops.training.fgclip2_batch import CaptionBatch, RegionBatch, ThingMaps, keys_of
from ovsops.training.fields import require_at_least, require_share
from ovsops.training.scenes import NUM_THING_CLASSES, SceneBank, StepDraws

ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)


@dataclass(frozen=True, kw_only=True)
class SceneRegionsConfig:
    """What is said of regions."""

    hard_groups: int = 16
    """Regions per worker and step that get negatives."""
    noun_share: float = 0.3
    """Share of steps whose phrases are bare nouns."""
    full_share: float = 0.3
    """Share of steps whose phrases say every attribute; in the others each attribute is said by chance, half of the
    time."""
    material_share: float = 0.5
    """Share of hard groups whose phrases say the material, and whose negatives may be wrong in it."""
    stuff_windows: int = 1
    """Windows drawn for each scene; one that shows a single stuff is a region with the stuff's name."""
    window_side: int = 32
    """Pixels of such a window."""

    def __post_init__(self) -> None:
        require_at_least(self, "program.regions", 0, "hard_groups", "stuff_windows")
        require_at_least(self, "program.regions", 1, "window_side")
        require_share(self, "program.regions", "noun_share", "full_share", "material_share")


@dataclass(frozen=True, kw_only=True)
class _Region:
    """One region of a batch on its way."""

    image: int
    box: tuple[float, float, float, float]
    phrase: str
    key: tuple[Any, ...]
    thing: Located | None


class SceneRegions:
    """Captions and regions of a bank's scenes; languages are drawn for each text."""

    def __init__(
        self,
        bank: SceneBank,
        *,
        batch_size: int,
        seed: int,
        config: SceneRegionsConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.bank = bank
        self.config = SceneRegionsConfig() if config is None else config
        self.draws = StepDraws(
            num_scenes=len(bank), batch_size=batch_size, seed=seed, rank=rank, world_size=world_size
        )
        self._keys = keys_of(list(bank.captions["en", "long"]))

    def captions(self, step: int) -> CaptionBatch:
        """Images with captions, each in a language of its own."""
        rows, generator = self.draws(step)
        return CaptionBatch(**self._captioned(rows, generator))

    def regions(self, step: int) -> RegionBatch:
        """The same with all things of the scenes, windows of stuff, and negatives for some of the things."""
        rows, generator = self.draws(step)
        captioned = self._captioned(rows, generator)
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        said = self._said(numbers)
        found = [
            region
            for image, row in enumerate(rows.tolist())
            for region in (*self._things(image, row, said, numbers), *self._windows(image, row, numbers))
        ]
        things = [place for place, region in enumerate(found) if region.thing is not None]
        hard = numbers.permutation(things)[: self.config.hard_groups].astype(np.int64)
        phrases, negatives = self._hard([found[place] for place in hard.tolist()], numbers)
        return RegionBatch(
            **captioned,
            boxes_xyxy=torch.tensor([region.box for region in found]).reshape(-1, 4),
            box_images=torch.tensor([region.image for region in found], dtype=torch.int64),
            phrases=tuple(region.phrase for region in found),
            phrase_keys=keys_of([region.key for region in found]),
            hard_regions=torch.from_numpy(hard),
            hard_phrases=phrases,
            negatives=negatives,
            things=ThingMaps(instances=self.bank.instances[rows], codes=self.bank.codes[rows]),
        )

    def _captioned(self, rows: Int[Tensor, " B"], generator: torch.Generator) -> dict[str, Any]:
        languages = torch.randint(len(LANGUAGES), (2, len(rows)), generator=generator).tolist()
        short, long = (
            tuple(
                self.bank.captions[LANGUAGES[language], length][row]
                for row, language in zip(rows.tolist(), of_length, strict=True)
            )
            for length, of_length in zip(("short", "long"), languages, strict=True)
        )
        return {
            "images": tuple(self.bank.images[row].permute(1, 2, 0).numpy() for row in rows.tolist()),
            "captions_short": short,
            "captions_long": long,
            "caption_keys": self._keys[rows],
        }

    def _said(self, numbers: np.random.Generator) -> tuple[Attribute, ...]:
        kind = numbers.random()
        if kind < self.config.noun_share:
            return ()
        if kind < self.config.noun_share + self.config.full_share:
            return ATTRIBUTES
        return tuple(a for a, is_said in zip(ATTRIBUTES, numbers.random(4) < 0.5, strict=True) if is_said)

    def _things(
        self, image: int, row: int, said: tuple[Attribute, ...], numbers: np.random.Generator
    ) -> list[_Region]:
        regions = []
        for thing in located_things(self.bank, row):
            values = values_of(thing)
            regions.append(
                _Region(
                    image=image,
                    box=corners(thing),
                    phrase=explicit_phrase(thing, drawn_language(numbers), said),
                    key=(thing.noun, *(values[attribute] for attribute in said)),
                    thing=thing,
                )
            )
        return regions

    def _windows(self, image: int, row: int, numbers: np.random.Generator) -> list[_Region]:
        height, width = self.bank.size_hw
        side = min(self.config.window_side, height, width)
        regions = []
        for top, left in numbers.integers(
            (height - side + 1, width - side + 1), size=(self.config.stuff_windows, 2)
        ).tolist():
            seen = self.bank.semantic[row, top : top + side, left : left + side]
            place = int(seen[0, 0]) - 1 - NUM_THING_CLASSES
            language = drawn_language(numbers)
            if place >= 0 and bool((seen == seen[0, 0]).all()):
                regions.append(
                    _Region(
                        image=image,
                        box=(float(left), float(top), float(left + side), float(top + side)),
                        phrase=STUFF[place].in_language(language),
                        key=(STUFF[place].name,),
                        thing=None,
                    )
                )
        return regions

    def _hard(
        self, regions: list[_Region], numbers: np.random.Generator
    ) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
        phrases, negatives = [], []
        for region in regions:
            assert region.thing is not None
            families = ATTRIBUTES if numbers.random() < self.config.material_share else CHANGED
            truth = region_truth(region.thing, numbers, said=families, changed=families)
            language = drawn_language(numbers)
            phrases.append(truth.phrases[language])
            negatives.append(truth.negatives[language])
        return tuple(phrases), tuple(negatives)


def located_things(bank: SceneBank, row: int) -> list[Located]:
    """Things of a scene. TrainingError where they have no boxes."""
    located = [thing for thing in bank.things[row] if isinstance(thing, Located)]
    if len(located) < len(bank.things[row]):
        raise TrainingError(f"scene {row}: its things have no boxes; take a bank of scenes or of truths")
    return located


def corners(thing: Located) -> tuple[float, float, float, float]:
    """Box of a thing, half-open pixels."""
    x, y, width, height = thing.box_xywh
    return float(x), float(y), float(x + width), float(y + height)


def drawn_language(numbers: np.random.Generator) -> Language:
    """Each as likely as the other."""
    return LANGUAGES[int(numbers.integers(len(LANGUAGES)))]
