"""Batches of FG-CLIP 2's training from a training set: images with captions and regions, whoever made it.

Nothing is known here but what the set says. Two regions of a step whose phrases are equal are true of each other;
all others count as false, which is as sure as the set is. All texts of a step are of one language, as in the
published training (360CVGroup/FG-CLIP b1af1cd, fgclip2/train/local_trainer.py:327-352), and its images of one
bucket of patches as far as they fill batches, so that little is padded.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from ovsops.backbones.fgclip2_pixels import patch_budget
from ovsops.errors import TrainingError
from ovsops.training.fgclip2_batch import CaptionBatch, RegionBatch, keys_of
from ovsops.training.fgclip2_sets_order import SetOrder
from ovsops.training.fields import require_at_least, require_share
from ovsops.training.scenes import step_generator

Rivals = Literal["all", "other_labels"]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetRegion:
    """One region of a set."""

    box: tuple[float, float, float, float]
    """x1 y1 x2 y2 in shares of the image's width and height."""
    short_expr: str
    long_expr: str
    negatives: tuple[str, ...] = ()
    """Ten expressions that are false for the region, or none: then it is a phrase only."""
    label: str = ""
    """Name of its category; "" where the set says none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetImage:
    """What a set says of one image."""

    caption_short: str
    caption_long: str
    regions: tuple[SetRegion, ...]
    """In the set's order, best first."""


@runtime_checkable
class SetBank(Protocol):
    """A set that is read image by image."""

    @property
    def languages(self) -> tuple[str, ...]:
        """Of each image's texts: `en` or `zh`."""

    @property
    def sizes_hw(self) -> Int64[np.ndarray, "N 2"]:
        """Height and width of each image in pixels."""

    @property
    def is_labelled(self) -> bool:
        """Whether every region has a label."""

    def image(self, place: int) -> SetImage:
        """Texts and boxes of one image."""

    def pixels(self, place: int) -> UInt8[np.ndarray, "_h _w 3"]:
        """Its picture."""


@dataclass(frozen=True, kw_only=True)
class SetRegionsConfig:
    """What a step takes of a set."""

    regions_per_image: int = 4
    """Regions of an image that are read, the first ones: 4 in the published code, whose sets have the best first."""
    hard_groups: int = 64
    """Most regions with negatives per worker and step; where there are more, some are drawn."""
    long_share: float = 0.5
    """Share of steps whose region phrases are the long expressions; the published code draws for each region. Hard
    groups take the short one, which their negatives are made of."""
    mix_languages: bool = False
    """Let a batch hold texts of several languages: expressions of one meaning then count as different."""
    rivals: Rivals = "all"
    """Regions of a step that are pushed away from a region's phrase: `all` whose phrases differ, as published; or
    those of `other_labels` alone. A short phrase may be true of another thing of its name (`ball` of a red one), and
    nobody looked; negatives of the set were looked at."""
    by_bucket: bool = True
    """Put images of one bucket of patches into a batch where they fill one; the rest go together."""

    def __post_init__(self) -> None:
        require_at_least(self, "program.set_regions", 1, "regions_per_image")
        require_at_least(self, "program.set_regions", 0, "hard_groups")
        require_share(self, "program.set_regions", "long_share")


class SetRegions:
    """Captions and regions of a set's images, by step."""

    def __init__(
        self,
        bank: SetBank,
        *,
        batch_size: int,
        seed: int,
        patch_size: int,
        config: SetRegionsConfig | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """`patch_size` is the model's, for the buckets. Raises TrainingError where a language fills no batch, or
        where labels are asked for and a region has none."""
        self.bank, self.batch_size, self.seed = bank, batch_size, seed
        self.config = SetRegionsConfig() if config is None else config
        if self.config.rivals == "other_labels" and not bank.is_labelled:
            raise TrainingError(
                "program.set_regions.rivals is other_labels, but a region of the set has no `category`: write the set "
                "with the dataset job, or take rivals: all"
            )
        self.rank, self.world_size = rank, world_size
        sizes, of_size = np.unique(bank.sizes_hw, axis=0, return_inverse=True)
        budgets = np.array([patch_budget((h, w), patch_size=patch_size) for h, w in sizes.tolist()], np.int64)
        self.order = SetOrder(
            languages=("any",) * len(of_size) if self.config.mix_languages else bank.languages,
            buckets=budgets[of_size.reshape(-1)] * self.config.by_bucket,
            whole=batch_size * world_size,
            seed=seed,
        )

    def captions(self, step: int) -> CaptionBatch:
        """Images with captions."""
        return CaptionBatch(**self._captioned(self._places(step)))

    def regions(self, step: int) -> RegionBatch:
        """The same with the first regions of each image, and the negatives of those that have them."""
        places = self._places(step)
        captioned = self._captioned(places)
        generator = step_generator(self.seed + 1, step * self.world_size + self.rank)
        numbers = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
        is_long = bool(numbers.random() < self.config.long_share)
        found = [
            (image, region)
            for image, place in enumerate(places)
            for region in self.bank.image(place).regions[: self.config.regions_per_image]
        ]
        phrases = tuple(region.long_expr if is_long else region.short_expr for _, region in found)
        with_negatives = [number for number, (_, region) in enumerate(found) if region.negatives]
        hard = np.sort(numbers.permutation(with_negatives)[: self.config.hard_groups]).astype(np.int64)
        boxes = [
            [
                share * side
                for share, side in zip(region.box, self._sides(captioned["images"][image]), strict=True)
            ]
            for image, region in found
        ]
        return RegionBatch(
            **captioned,
            boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            box_images=torch.tensor([image for image, _ in found], dtype=torch.int64),
            phrases=phrases,
            phrase_keys=keys_of([same_text(phrase) for phrase in phrases]),
            hard_regions=torch.from_numpy(hard),
            hard_phrases=tuple(found[number][1].short_expr for number in hard.tolist()),
            negatives=tuple(found[number][1].negatives for number in hard.tolist()),
            label_keys=(
                keys_of([region.label for _, region in found])
                if self.config.rivals == "other_labels"
                else None
            ),
        )

    def _places(self, step: int) -> list[int]:
        start = self.rank * self.batch_size
        return self.order.batch(step)[start : start + self.batch_size].tolist()

    def _captioned(self, places: list[int]) -> dict[str, Any]:
        told = [self.bank.image(place) for place in places]
        pictures = tuple(self.bank.pixels(place) for place in places)
        for place, picture in zip(places, pictures, strict=True):
            if picture.shape[:2] != tuple(self.bank.sizes_hw[place]):
                raise TrainingError(
                    f"image {place} of the set is {picture.shape[0]}x{picture.shape[1]} pixels (h x w) now, it was "
                    f"{self.bank.sizes_hw[place].tolist()}: the set changed while it was learned from; restore it"
                )
        return {
            "images": pictures,
            "captions_short": tuple(image.caption_short for image in told),
            "captions_long": tuple(image.caption_long for image in told),
            "caption_keys": torch.tensor([text_key(image.caption_long) for image in told]),
        }

    @staticmethod
    def _sides(picture: UInt8[np.ndarray, "_h _w 3"]) -> tuple[int, int, int, int]:
        height, width, _ = picture.shape
        return width, height, width, height


def same_text(text: str) -> str:
    """Equal for texts that differ in case, spaces or an end mark alone."""
    return " ".join(text.lower().split()).rstrip(" .。")


def text_key(text: str) -> int:
    """A number that workers agree on, equal for texts that are the same."""
    digest = hashlib.blake2b(same_text(text).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
