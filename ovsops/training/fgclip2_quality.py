"""What a FG-CLIP 2 knows of regions and scenes, on drawn scenes that it was not taught; all by the loader that ships.

Every figure here is about the drawn world and says nothing about photographs. Axes: N scenes, R regions, T texts, D
channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.fgclip2 import FgClip2, FgClip2Image
from ovsops.metrics.blind import BlindConfig, blind_scores
from ovsops.metrics.fgovd import expression_similarity, positive_is_first
from ovsops.metrics.regions import region_answers
from ovsops.metrics.retrieval import ranks
from ovsops.miniature.attributes import NOUNS, Language
from ovsops.miniature.captions import Length
from ovsops.miniature.region_truth import (
    CHANGED,
    Attribute,
    Located,
    RegionTruth,
    explicit_phrase,
    region_truth,
    wrong_values,
)
from ovsops.training.fgclip2_scenes import located_things
from ovsops.training.quality import paired_similarity
from ovsops.training.scenes import SceneBank

ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)


def load_fgclip2(folder: Path) -> FgClip2:
    """The FG-CLIP 2 of a folder, float32 on the CPU."""
    return FgClip2(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32)


@dataclass(frozen=True, kw_only=True)
class RegionSet:
    """Things of held-out scenes from their true boxes, with what is said of them."""

    features: Float[Tensor, "R D"]
    """Unit length; zero for an empty region."""
    things: tuple[Located, ...]
    truths: tuple[RegionTruth, ...]
    scenes: Int64[np.ndarray, " R"]
    """Place of each region's scene in the bank."""

    def by_scene(
        self, is_right: Bool[Tensor, " R"], chosen: Bool[Tensor, " R"] | None = None
    ) -> Int64[np.ndarray, "N 2"]:
        """Right regions and all of them in each scene, for intervals that draw scenes again."""
        kept = torch.ones(len(self.things), dtype=torch.bool) if chosen is None else chosen
        length = int(self.scenes.max()) + 1
        counts = [
            np.bincount(self.scenes[mask.numpy()], minlength=length) for mask in (is_right & kept, kept)
        ]
        return np.stack(counts, axis=1).astype(np.int64)


def encode_scenes(model: FgClip2, bank: SceneBank) -> list[FgClip2Image]:
    """Each scene as the loader sees it."""
    return model.encode_images([image.permute(1, 2, 0).numpy() for image in bank.images])


def region_set(
    model: FgClip2,
    bank: SceneBank,
    images: Sequence[FgClip2Image],
    *,
    said: Sequence[Attribute] = CHANGED,
    changed: Sequence[Attribute] = CHANGED,
    outright: bool = True,
    seed: int = 0,
) -> RegionSet:
    """All things of a bank from their true boxes; negatives are drawn by seed, scene and place.

    `outright` is told in `region_truth`.
    """
    features: list[Tensor] = []
    things: list[Located] = []
    truths: list[RegionTruth] = []
    scenes: list[int] = []
    for scene, image in enumerate(images):
        located = located_things(bank, scene)
        for place, thing in enumerate(located):
            generator = np.random.default_rng([seed, scene, place])
            truths.append(region_truth(thing, generator, said=said, changed=changed, outright=outright))
        boxes = torch.tensor([truth.box_xyxy for truth in truths[len(things) :]]).reshape(-1, 4)
        features.append(model.region_features(image, boxes)[0])
        things += located
        scenes += [scene] * len(located)
    return RegionSet(
        features=torch.cat(features),
        things=tuple(things),
        truths=tuple(truths),
        scenes=np.array(scenes, np.int64),
    )


def hard_negatives(model: FgClip2, regions: RegionSet, language: Language) -> Bool[Tensor, " R"]:
    """Whether the true phrase of each region beats its ten negatives; a tie is wrong."""
    rows = [[truth.phrases[language], *truth.negatives[language]] for truth in regions.truths]
    texts = model.encode_text([text for row in rows for text in row], length="box")
    return positive_is_first(expression_similarity(regions.features, texts.unflatten(0, (len(rows), -1))))


def one_attribute(
    model: FgClip2, regions: RegionSet, language: Language, attribute: Attribute
) -> Bool[Tensor, " R"]:
    """Whether the true phrase beats those with every other value of one attribute; the others stay said and true."""
    said = [*CHANGED, attribute]
    rows = [
        [
            explicit_phrase(thing, language, said),
            *(
                explicit_phrase(thing, language, said, change=change)
                for change in wrong_values(thing, [attribute])
            ),
        ]
        for thing in regions.things
    ]
    texts = model.encode_text([text for row in rows for text in row], length="box")
    return positive_is_first(expression_similarity(regions.features, texts.unflatten(0, (len(rows), -1))))


def blind_is_right(
    regions: RegionSet, language: Language, config: BlindConfig | None = None
) -> Bool[Tensor, " R"]:
    """What a model that sees the texts alone gets right of `hard_negatives`; chance is 1 of 11."""
    rows = [[truth.phrases[language], *truth.negatives[language]] for truth in regions.truths]
    scores, num_texts = blind_scores(rows, regions.scenes.tolist(), config=config)
    return positive_is_first(scores, num_texts)


def noun_answers(model: FgClip2, regions: RegionSet, language: Language) -> Int[Tensor, " R"]:
    """Place of the noun that each region is taken for, of 12; -1 for a tie."""
    names = model.encode_text([noun.in_language(language) for noun in NOUNS], length="box")
    return torch.from_numpy(region_answers(regions.features @ names.T))


def true_nouns(regions: RegionSet) -> Int[Tensor, " R"]:
    """Place of each region's own noun."""
    places = {noun.name: place for place, noun in enumerate(NOUNS)}
    return torch.tensor([places[thing.noun] for thing in regions.things])


def caption_ranks(
    model: FgClip2, bank: SceneBank, images: Sequence[FgClip2Image], language: Language, length: Length
) -> Mapping[str, Int[Tensor, " N"]]:
    """Ranks of the own caption among all (`image to text`) and of the own scene (`text to image`)."""
    captions = bank.captions[language, length]
    pooled = torch.stack([image.pooled for image in images])
    texts = model.encode_text(captions, length=length)
    similarity, is_pair = paired_similarity(F.normalize(pooled, dim=-1), texts, captions)
    return {"image to text": ranks(similarity, is_pair), "text to image": ranks(similarity.T, is_pair.T)}
