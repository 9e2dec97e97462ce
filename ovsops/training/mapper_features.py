"""What frozen towers say of a bank of scenes, computed once: the mapper learns from these tensors alone.

Axes: N scenes, P patches, K attention heads, D DINO channels, E SigLIP channels, R regions (the most things that
a scene has, then every stuff), C classes, F phrases, A attributes, L languages, T things, S sets of said attributes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Float16, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ConfigError
from ovsops.features import PatchFeatures, TextFeatures
from ovsops.miniature.attributes import LANGUAGES, NOUNS, STUFF, Language
from ovsops.miniature.captions import ATTRIBUTES, Described, region_phrase
from ovsops.training.scenes import (
    ABSENT,
    FAMILIES,
    LENGTHS,
    NUM_CLASSES,
    NUM_STUFF,
    SceneBank,
    class_planes,
    phrase_codes,
    region_planes,
    stuff_codes,
)

SAID_SETS: tuple[frozenset[str], ...] = tuple(
    frozenset(said) for count in range(len(ATTRIBUTES) + 1) for said in combinations(ATTRIBUTES, count)
)
"""Every set of attributes that a phrase may say; the first says the noun alone, the last all of them."""
_SCENES_TOGETHER = 64


@runtime_checkable
class DinoTower(Protocol):
    """A frozen DINO (`ovsops.backbones.dinov2.Dinov2`)."""

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""

    def encode(
        self,
        pixels: Float[Tensor, "B 3 h w"],
        *,
        with_attention: bool,
        masked: Bool[Tensor, "B H W"] | None = None,
    ) -> PatchFeatures:
        """Features of RGB views in 0..255; a mask token stands where `masked` is true."""


@runtime_checkable
class SiglipTower(Protocol):
    """A frozen SigLIP vision tower (`ovsops.backbones.siglip2.SiglipVision`)."""

    @property
    def patch_size(self) -> int:
        """Pixels on a side of a patch."""

    def encode(self, pixels: Float[Tensor, "B 3 h w"]) -> PatchFeatures:
        """Features of RGB views in 0..255."""

    def align(self, patch_tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B P E"]:
        """Each patch in text space."""


@runtime_checkable
class TextTower(Protocol):
    """A frozen text tower (`ovsops.backbones.siglip2.SiglipText`)."""

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """Pooled embeddings."""


@dataclass(frozen=True, kw_only=True)
class GridFeatures:
    """The scenes seen on one square patch grid; half precision, because there are many."""

    patch_tokens: Float16[Tensor, "N P D"]
    """DINO, after its last norm."""
    cls_logits: Float16[Tensor, "N K P"]
    """DINO's CLS-to-patch attention logits."""
    aligned: Float16[Tensor, "N P E"] | None
    """SigLIP patches in its text space; None where no SigLIP tower was given."""
    region_shares: Float16[Tensor, "N R P"]
    """Share of each patch that each region covers; zero for a region that the scene does not have."""
    class_shares: Float16[Tensor, "N P C"]
    """Share of each patch that each class covers."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Every text that training may show, embedded once; not normalised, as the mapper takes them."""

    captions: Mapping[tuple[str, str], Float[Tensor, "N E"]]
    """By (language, "short" or "long")."""
    names: Float[Tensor, "L C E"]
    """Class names, in the order of ids."""
    phrases: Float[Tensor, "F E"]
    """Phrases about things, each once."""
    phrase_codes: Int[Tensor, "F A"]
    """What each phrase says, as `ovsops.training.scenes.phrase_codes`."""
    phrase_of: Int[Tensor, "L N T S"]
    """Row of the phrase about a thing that says the attributes `SAID_SETS[s]`; ABSENT where there is no thing."""


@dataclass(frozen=True, kw_only=True)
class MapperFeatures:
    """Grids, texts, and what the regions are."""

    grids: Mapping[int, GridFeatures]
    """By patches on a side."""
    texts: TextTable
    region_codes: Int[Tensor, "N R A"]
    """Attributes of each region, as `SceneBank.codes`; stuffs follow the things."""

    def __len__(self) -> int:
        return len(self.region_codes)

    @property
    def text_width(self) -> int:
        """Channels of the text embeddings."""
        return self.texts.names.shape[-1]

    @property
    def dino_width(self) -> int:
        """Channels of DINO's patch tokens."""
        return next(iter(self.grids.values())).patch_tokens.shape[-1]

    def grid(self, side: int) -> GridFeatures:
        """The features of one grid. Raises ConfigError for a grid that was not computed."""
        if side not in self.grids:
            raise ConfigError(
                f"no features of a grid of {side}x{side} patches: there are those of {sorted(self.grids)}; "
                "compute the features with this grid too"
            )
        return self.grids[side]


def compute_features(
    bank: SceneBank,
    *,
    dino: DinoTower,
    text: TextTower,
    siglip: SiglipTower | None = None,
    grids: Sequence[int],
    device: str = "cpu",
) -> MapperFeatures:
    """Run the towers over a bank, once per grid; what comes back lies in main memory.

    A grid of g patches shows DINO the scene at g times its patch in pixels, and SigLIP at g times its own.
    """
    if not grids:
        raise ConfigError("mapper features: no grid; give the number of patches on a side, 16 for instance")
    stuff = stuff_codes(range(NUM_STUFF)).expand(len(bank), -1, -1)
    return MapperFeatures(
        grids={side: grid_features(bank, dino, siglip, side, device=device) for side in dict.fromkeys(grids)},
        texts=text_table(bank, text),
        region_codes=torch.cat([bank.codes, stuff], dim=1),
    )


def grid_features(
    bank: SceneBank, dino: DinoTower, siglip: SiglipTower | None, side: int, *, device: str
) -> GridFeatures:
    """The scenes on a grid of `side` x `side` patches."""
    parts: dict[str, list[Tensor]] = {}
    for start in range(0, len(bank), _SCENES_TOGETHER):
        rows = slice(start, start + _SCENES_TOGETHER)
        images = bank.images[rows].to(device).float()
        seen = dino.encode(resized(images, side * dino.patch_size), with_attention=True)
        assert seen.cls_patch_logits is not None, "asked for"
        found = {
            "patch_tokens": seen.patch_tokens.flatten(1, 2),
            "cls_logits": seen.cls_patch_logits.flatten(2),
            "region_shares": regions_on_grid(
                bank.instances[rows], bank.semantic[rows], bank.codes.shape[1], side
            ),
            "class_shares": classes_on_grid(bank.semantic[rows], side),
        }
        if siglip is not None:
            tokens = siglip.encode(resized(images, side * siglip.patch_size)).patch_tokens.flatten(1, 2)
            found["aligned"] = siglip.align(tokens)
        for name, tensor in found.items():
            parts.setdefault(name, []).append(tensor.to("cpu", torch.float16))
    joined = {name: torch.cat(tensors) for name, tensors in parts.items()}  # also out of inference mode
    return grid_from_tensors(joined)


def grid_from_tensors(tensors: Mapping[str, Tensor]) -> GridFeatures:
    """Fields by name; without `aligned` there was no SigLIP tower."""
    return GridFeatures(
        patch_tokens=tensors["patch_tokens"],
        cls_logits=tensors["cls_logits"],
        aligned=tensors.get("aligned"),
        region_shares=tensors["region_shares"],
        class_shares=tensors["class_shares"],
    )


def resized(images: Float[Tensor, "B 3 h w"], side: int) -> Float[Tensor, "B 3 s s"]:
    """Views of `side` pixels, antialiased; the same tensor where it has that size."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)


def classes_on_grid(semantic: UInt8[Tensor, "B h w"], side: int) -> Float[Tensor, "B P C"]:
    """Share of each patch that each class covers; class id c is column c - 1."""
    return F.adaptive_avg_pool2d(class_planes(semantic), side).flatten(2).transpose(1, 2)


def regions_on_grid(
    instances: UInt8[Tensor, "B h w"], semantic: UInt8[Tensor, "B h w"], num_things: int, side: int
) -> Float[Tensor, "B R P"]:
    """Share of each patch that each thing covers, then that each stuff covers."""
    planes = region_planes(instances, semantic, num_things=num_things)
    return F.adaptive_avg_pool2d(planes, side).flatten(2)


def text_table(bank: SceneBank, text: TextTower) -> TextTable:
    """Embeddings of the bank's captions, of the class names, and of every phrase about its things."""
    sentences, codes, phrase_of = _phrases(bank.things, most=bank.codes.shape[1])
    names = [word.in_language(language) for language in LANGUAGES for word in (*NOUNS, *STUFF)]
    return TextTable(
        captions={
            (language, length): _embedded(text, bank.captions[language, length])
            for language in LANGUAGES
            for length in LENGTHS
        },
        names=_embedded(text, names).unflatten(0, (len(LANGUAGES), NUM_CLASSES)),
        phrases=_embedded(text, sentences),
        phrase_codes=codes,
        phrase_of=phrase_of,
    )


def _embedded(text: TextTower, sentences: Sequence[str]) -> Float[Tensor, "F E"]:
    return text.encode(sentences).embeddings.float().cpu().clone()  # a clone leaves inference mode


def _phrases(
    things: Sequence[Sequence[Described]], *, most: int
) -> tuple[list[str], Int[Tensor, "F A"], Int[Tensor, "L N T S"]]:
    """Distinct phrases, what they say, and which belongs to which thing."""
    place: dict[str, int] = {}
    codes: list[list[int]] = []
    known: dict[tuple[str, ...], list[list[int]]] = {}
    rows = torch.full((len(LANGUAGES), len(things), most, len(SAID_SETS)), ABSENT, dtype=torch.int64)
    for n, of_scene in enumerate(things):
        for t, thing in enumerate(of_scene):
            kind = tuple(getattr(thing, family) for family in FAMILIES)
            if kind not in known:
                known[kind] = [
                    [_row(thing, language, said, place, codes) for said in SAID_SETS]
                    for language in LANGUAGES
                ]
            rows[:, n, t] = torch.tensor(known[kind])
    return list(place), torch.tensor(codes, dtype=torch.int64).reshape(-1, len(FAMILIES)), rows


def _row(
    thing: Described, language: Language, said: frozenset[str], place: dict[str, int], codes: list[list[int]]
) -> int:
    phrase = region_phrase(thing, language, said)
    if phrase not in place:
        place[phrase] = len(place)
        codes.append(phrase_codes(thing, said))
    return place[phrase]
