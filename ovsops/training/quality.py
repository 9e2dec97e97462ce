"""What the miniature checkpoints know, on drawn scenes that they were not taught.

Every figure here is about the drawn world and says nothing about photographs. Axes: N scenes, R regions, C classes,
P patches, D channels, I images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor
from torch.nn import functional as F

from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.siglip2 import SiglipText, SiglipVision, dense_pooling, load_siglip_vision
from ovsops.metrics.boundary import BoundaryCounts
from ovsops.metrics.ceiling import through_patches
from ovsops.metrics.counts import ratio
from ovsops.metrics.probes import LinearProbe, fit_linear_probe, predict_by_neighbours
from ovsops.metrics.regions import RegionCounts
from ovsops.metrics.retrieval import RankCounts, both_directions
from ovsops.metrics.segmentation import ConfusionCounts, background_table
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES, NOUNS, STUFF, Language
from ovsops.segmenters.build import build_segmenter, compute_text_features
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.kinds import AnySegmenterConfig, compute_text, load_segmenter
from ovsops.segmenters.segmenter import FusedSegmenter
from ovsops.segmenters.views import plan_views
from ovsops.text.vocabulary import Vocabulary
from ovsops.training.scenes import NUM_THING_CLASSES, SceneBank, class_shares, region_shares

NUM_IDS = len(CLASS_NAMES) + 1
"""Ids 0 (no label) to 20."""
_BATCH = 64


@dataclass(frozen=True, kw_only=True)
class SiglipTowers:
    """Both towers of one SigLIP checkpoint."""

    text: SiglipText
    vision: SiglipVision


def load_siglip(folder: Path) -> SiglipTowers:
    """The miniature SigLIP 2 of a folder, float32 on the CPU."""
    place = resolve(Checkpoint(source=str(folder)))
    vision = load_siglip_vision(place, device="cpu", dtype=torch.float32)
    return SiglipTowers(text=SiglipText(place, device="cpu", dtype=torch.float32), vision=vision)


def load_dino(folder: Path) -> Dinov2:
    """The miniature DINOv2 of a folder, float32 on the CPU."""
    return Dinov2(resolve(Checkpoint(source=str(folder))), device="cpu", dtype=torch.float32)


def retrieval(towers: SiglipTowers, bank: SceneBank, language: Language) -> tuple[RankCounts, RankCounts]:
    """Image to text and text to image over all scenes of the bank by their long captions; equal captions are right."""
    return both_directions(*caption_similarity(towers, bank, language))


def caption_similarity(
    towers: SiglipTowers, bank: SceneBank, language: Language
) -> tuple[Float[Tensor, "N N"], Bool[Tensor, "N N"]]:
    """Cosine of each scene with each long caption, and which of them belong together."""
    captions = bank.captions[language, "long"]
    images = torch.cat([towers.vision.pool(tokens) for tokens in _siglip_tokens(towers.vision, bank)])
    return paired_similarity(images, towers.text.encode(captions).embeddings, captions)


def retrieval_counts(
    images: Float[Tensor, "N D"], texts: Float[Tensor, "N D"], captions: Sequence[str]
) -> tuple[RankCounts, RankCounts]:
    """Image to text and text to image by cosine; equal captions are right."""
    return both_directions(*paired_similarity(images, texts, captions))


def paired_similarity(
    images: Float[Tensor, "N D"], texts: Float[Tensor, "N D"], captions: Sequence[str]
) -> tuple[Float[Tensor, "N N"], Bool[Tensor, "N N"]]:
    """Cosine of each image with each text, and which of them belong together: equal captions do."""
    keys = {caption: i for i, caption in enumerate(captions)}
    own = torch.tensor([keys[caption] for caption in captions])
    return F.normalize(images, dim=-1) @ F.normalize(texts, dim=-1).T, own[:, None] == own[None]


def region_nouns(towers: SiglipTowers, bank: SceneBank) -> dict[str, RegionCounts]:
    """Things named from their true masks by SigLIP's dense features, in each language; all scenes together."""
    found = region_nouns_by_scene(towers, bank)
    return {language: RegionCounts(counts=counts.sum(axis=0)) for language, counts in found.items()}


def region_nouns_by_scene(
    towers: SiglipTowers, bank: SceneBank
) -> dict[Language, Int64[np.ndarray, "N 3 K"]]:
    """The counts (`RegionCounts`) of each scene, so that intervals can draw the scenes again.

    A region's feature is the mean of its patches' dense MAP features, weighed by how much of each patch it covers.
    """
    names = {
        language: F.normalize(towers.text.encode([n.in_language(language) for n in NOUNS]).embeddings, dim=-1)
        for language in LANGUAGES
    }
    most = bank.codes.shape[1]
    rows: list[Tensor] = []
    nouns: list[Tensor] = []
    scenes: list[Tensor] = []
    for first, tokens in zip(range(0, len(bank), _BATCH), _siglip_tokens(towers.vision, bank), strict=True):
        part = slice(first, first + _BATCH)
        shares = region_shares(
            bank.instances[part],
            bank.semantic[part],
            patch_size=towers.vision.patch_size,
            num_things=most,
        )
        weights = shares[:, :most].flatten(2)
        dense = F.normalize(dense_pooling(towers.vision.model.head, tokens), dim=-1)
        present = weights.sum(dim=-1) > 0
        rows.append((weights @ dense)[present])
        nouns.append(bank.codes[part][present][:, 0])
        scenes.append(first + present.nonzero()[:, 0])
    regions = F.normalize(torch.cat(rows), dim=-1)
    similar = {language: regions @ vectors.T for language, vectors in names.items()}
    counts: dict[Language, list[np.ndarray]] = {language: [] for language in LANGUAGES}
    classes, scene_of = torch.cat(nouns), torch.cat(scenes)
    for scene in range(len(bank)):
        own = scene_of == scene
        for language, of_scenes in counts.items():
            found = RegionCounts.zeros(len(NOUNS)).update(
                similar[language][own],
                classes[own].numpy(),
                second_similarity=similar["zh" if language == "en" else "en"][own],
            )
            of_scenes.append(found.counts)
    return {language: np.stack(of_scenes) for language, of_scenes in counts.items()}


@dataclass(frozen=True, kw_only=True)
class PatchSet:
    """Patch features with the class that covers most of each patch."""

    features: Float[Tensor, "P D"]
    classes: Int64[Tensor, " P"]
    """From 0: things, then stuff."""
    scenes: Int64[Tensor, " P"]
    """Place of each patch's scene in the bank."""


def patch_set(tokens: Sequence[Tensor], bank: SceneBank, *, patch_size: int, seed: int = 0) -> PatchSet:
    """All patches of things and as many of stuff, drawn by the seed."""
    classes = class_shares(bank.semantic, patch_size=patch_size).flatten(2).argmax(dim=1).flatten()
    features = torch.cat([t.flatten(0, 1) for t in tokens])
    scenes = torch.arange(len(bank)).repeat_interleave(len(classes) // len(bank))
    things = (classes < NUM_THING_CLASSES).nonzero().flatten()
    stuff = (classes >= NUM_THING_CLASSES).nonzero().flatten()
    drawn = stuff[torch.randperm(len(stuff), generator=torch.Generator().manual_seed(seed))[: len(things)]]
    chosen = torch.cat([things, drawn])
    return PatchSet(features=features[chosen], classes=classes[chosen], scenes=scenes[chosen])


def probe_accuracy(train: PatchSet, test: PatchSet) -> dict[str, float]:
    """Linear probe and 15 nearest neighbours: accuracy on patches of things and of stuff."""
    found = probe_counts(train, test)
    return {name: float(share_right(counts.sum(axis=0))) for name, counts in found.items()}


def share_right(counts: np.ndarray) -> np.ndarray:
    """Right among all, of any batch of counts [*B 2]; nan where there is nothing."""
    return ratio(counts[..., 0], counts[..., 1])


def probe_counts(train: PatchSet, test: PatchSet) -> dict[str, Int64[np.ndarray, "N 2"]]:
    """The same of each test scene: patches that are named right, and all of them."""
    probe: LinearProbe = fit_linear_probe(train.features, train.classes)
    answers = {
        "linear": probe.predict(test.features),
        "kNN": predict_by_neighbours(train.features, train.classes, test.features),
    }
    num_scenes = int(test.scenes.max()) + 1
    is_noun = test.classes < NUM_THING_CLASSES
    found = {}
    for name, predicted in answers.items():
        for group, chosen in (("nouns", is_noun), ("stuff", ~is_noun)):
            right = test.scenes[chosen & (predicted == test.classes)].bincount(minlength=num_scenes)
            found[f"{name} {group}"] = torch.stack(
                [right, test.scenes[chosen].bincount(minlength=num_scenes)], dim=1
            ).numpy()
    return found


def dino_tokens(dino: Dinov2, bank: SceneBank) -> list[Float[Tensor, "B P D"]]:
    """DINO's patch tokens, batch by batch."""
    return [
        dino.encode(bank.images[i : i + _BATCH].float(), with_attention=False).patch_tokens.flatten(1, 2)
        for i in range(0, len(bank), _BATCH)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentationStates:
    """Counts of every image, so that intervals can draw the images again."""

    confusion: Int64[np.ndarray, "I C C"]
    boundary: Int64[np.ndarray, "I 4 C"] | None = None

    @property
    def areas(self) -> Int64[np.ndarray, "I 3 C"]:
        """Intersection, truth and prediction per id."""
        diagonal = np.diagonal(self.confusion, axis1=1, axis2=2)
        return np.stack([diagonal, self.confusion.sum(axis=2), self.confusion.sum(axis=1)], axis=1)

    @property
    def with_background(self) -> Int64[np.ndarray, "I 3 C"]:
        """The same for nouns and one background: stuff and no label are 0."""
        table = background_table(NUM_IDS, range(1, NUM_THING_CLASSES + 1))
        return np.stack([ConfusionCounts(counts=counts).remapped(table).areas for counts in self.confusion])


ALL_IDS = range(1, NUM_IDS)
STUFF_IDS = range(NUM_IDS - len(STUFF), NUM_IDS)


def segmentation(
    bank: SceneBank,
    vocabulary: Vocabulary,
    configs: Mapping[str, SegmenterConfig],
    *,
    language: Language = "en",
    with_boundary: bool = False,
) -> dict[str, SegmentationStates]:
    """Each config's labels against the truth. Configs that differ only in late numbers share one pass of the towers."""
    found: dict[str, SegmentationStates] = {}
    groups: dict[SegmenterConfig, list[str]] = {}
    for name, config in configs.items():
        groups.setdefault(_encoder_part(config), []).append(name)
    for encoder_config, names in groups.items():
        text = compute_text_features(encoder_config, vocabulary, (language,))
        encoder = build_segmenter(encoder_config, vocabulary, text)
        assert isinstance(encoder, FusedSegmenter)
        labellers = {
            name: FusedSegmenter(configs[name], text, encoder.dino, encoder.siglip, device="cpu")
            for name in names
        }
        counts: dict[str, list[np.ndarray]] = {name: [] for name in names}
        edges: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for first in range(0, len(bank), _BATCH):
            images = [image.permute(1, 2, 0).numpy() for image in bank.images[first : first + _BATCH]]
            plans = [plan_views((image.shape[0], image.shape[1]), encoder_config) for image in images]
            features = encoder.encode(images, plans)
            for i, (image, plan, views) in enumerate(zip(images, plans, features, strict=True)):
                truth = bank.semantic[first + i].numpy()
                for name, labeller in labellers.items():
                    labels = class_ids(labeller.label(image, plan, views).labels, vocabulary)
                    counts[name].append(ConfusionCounts.zeros(NUM_IDS).update(truth, labels).counts)
                    if with_boundary:
                        edges[name].append(BoundaryCounts.zeros(NUM_IDS).update(truth, labels).counts)
        for name in names:
            found[name] = SegmentationStates(
                confusion=np.stack(counts[name]), boundary=np.stack(edges[name]) if with_boundary else None
            )
    return {name: found[name] for name in configs}


def constant_map(bank: SceneBank, *, class_id: int) -> SegmentationStates:
    """One class for every pixel: a control."""
    labels = np.full(bank.semantic.shape[1:], class_id, np.uint8)
    counts = [ConfusionCounts.zeros(NUM_IDS).update(truth, labels).counts for truth in bank.semantic.numpy()]
    return SegmentationStates(confusion=np.stack(counts))


def shuffled_names(vocabulary: Vocabulary) -> Vocabulary:
    """Every class with the prompts of the next one: a control."""
    classes = vocabulary.classes
    moved = tuple(
        replace(own, prompts=other.prompts)
        for own, other in zip(classes, [*classes[1:], classes[0]], strict=True)
    )
    return replace(vocabulary, classes=moved)


def labelled_states(
    bank: SceneBank, vocabulary: Vocabulary, config: AnySegmenterConfig, *, language: Language = "en"
) -> SegmentationStates:
    """The labels of a segmenter of any kind against the truth, as a label job would write them."""
    text = compute_text(config, vocabulary, (language,))
    segmenter = load_segmenter(config, vocabulary, text.to_bytes())
    counts, edges = [], []
    for first in range(0, len(bank), _BATCH):
        part = slice(first, first + _BATCH)
        images = [image.permute(1, 2, 0).numpy() for image in bank.images[part]]
        for found, truth in zip(segmenter.segment(images), bank.semantic[part].numpy(), strict=True):
            labels = class_ids(found.labels, vocabulary)
            counts.append(ConfusionCounts.zeros(NUM_IDS).update(truth, labels).counts)
            edges.append(BoundaryCounts.zeros(NUM_IDS).update(truth, labels).counts)
    return SegmentationStates(confusion=np.stack(counts), boundary=np.stack(edges))


def class_ids(labels: np.ndarray, vocabulary: Vocabulary) -> UInt8[np.ndarray, "h w"]:
    """Places in the vocabulary to class ids; 0 stays."""
    table = np.array([0, *vocabulary.ids], np.uint8)
    return table[labels]


def grid_ceiling(bank: SceneBank, *, grid: int, kind: Literal["hard", "soft"]) -> SegmentationStates:
    """What a perfect classifier of patches would reach (`metrics.ceiling`)."""
    states = []
    for semantic in bank.semantic.numpy():
        labels = through_patches(semantic, (grid, grid), kind=kind)
        states.append(ConfusionCounts.zeros(NUM_IDS).update(semantic, labels).counts)
    return SegmentationStates(confusion=np.stack(states))


def _encoder_part(config: SegmenterConfig) -> SegmenterConfig:
    """The config whose features serve this one too: late numbers at fixed values, both towers on, attention kept."""
    return replace(
        config,
        alpha=0.5,
        siglip_scale=1.0,
        siglip_shift=0.0,
        prior_weight=0.5,
        prior_center=0.0,
        temperature=1.0,
        bias=0.0,
        threshold=0.0,
        cleaning=None,
        refinement=None,
        negative_weight=0.0,
    )


def _siglip_tokens(vision: SiglipVision, bank: SceneBank) -> list[Float[Tensor, "B P D"]]:
    return [
        vision.encode(bank.images[i : i + _BATCH].float()).patch_tokens.flatten(1, 2)
        for i in range(0, len(bank), _BATCH)
    ]
