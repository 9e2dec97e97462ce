"""Boxes with names on scenes of the miniature world: what is true, and figures of what an annotator says.

All of it is about the drawn world and says nothing about photographs. Axes: I images, N boxes, C classes.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from ovsops.annotators.fitting import TrueBoxes
from ovsops.annotators.judging import JudgedBoxes, unjudged
from ovsops.backbones.detections import Detections
from ovsops.masks.boxes import boxes_xywh_to_xyxy
from ovsops.masks.regions import Region
from ovsops.masks.rle import Rle, mask_to_rle
from ovsops.metrics.bootstrap import BootstrapConfig, Interval, bootstrap, draw_times, percentile_interval
from ovsops.metrics.concepts import ConceptCounts, cg_f1, il_mcc
from ovsops.metrics.detection import DetectionCounts
from ovsops.metrics.matching import box_ious
from ovsops.metrics.objects import FoundObjects
from ovsops.miniature.attributes import COLOURS, NOUNS, class_of_thing
from ovsops.miniature.scene import Scene
from ovsops.regions.presence import best_region_scores
from ovsops.text.vocabulary import ClassSpec, Vocabulary


def colour_noun_vocabulary() -> Vocabulary:
    """Every colour of every noun, 108 classes in 12 groups: "red ball", 红色球."""
    return Vocabulary(
        name="colour_nouns",
        languages=("en", "zh"),
        templates={"en": "plain", "zh": "plain"},
        classes=tuple(
            ClassSpec(
                id=1 + i * len(COLOURS) + j,
                name=f"{colour.en} {noun.en}",
                group=noun.en,
                prompts={"en": (f"{colour.en} {noun.en}",), "zh": (f"{colour.zh}{noun.zh}",)},
            )
            for i, noun in enumerate(NOUNS)
            for j, colour in enumerate(COLOURS)
        ),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxScene:
    """A picture with its things, by the classes of a vocabulary."""

    image: UInt8[np.ndarray, "h w 3"]
    truth: TrueBoxes
    masks: tuple[Rle, ...]


def box_scenes(scenes: Iterable[Scene], vocabulary: Vocabulary) -> Iterator[BoxScene]:
    """Scenes with the boxes of things whose noun, or colour and noun, is a class."""
    place = {spec.name: label for label, spec in enumerate(vocabulary.classes)}
    for scene in scenes:
        boxes, labels, masks = [], [], []
        for number, thing in enumerate(scene.things, 1):
            name = class_of_thing(thing.colour, thing.noun, place)
            if name is not None:
                boxes.append(thing.box_xywh)
                labels.append(place[name])
                masks.append(mask_to_rle(scene.instances == number))
        corners = boxes_xywh_to_xyxy(np.array(boxes, np.float32).reshape(-1, 4))
        yield BoxScene(
            image=scene.image,
            truth=TrueBoxes(
                boxes_xyxy=torch.from_numpy(corners), labels=torch.tensor(labels, dtype=torch.int64)
            ),
            masks=tuple(masks),
        )


def ap50_difference(one: DetectionCounts, other: DetectionCounts, config: BootstrapConfig) -> Interval:
    """Interval of AP50 of `one` less that of `other`, the same images drawn for both."""
    times = draw_times(len(one.images), config)
    whole = np.ones((1, len(one.images)), np.int64)
    value, drawn = (
        one.average_precisions(t)[:, 1] - other.average_precisions(t)[:, 1] for t in (whole, times)
    )
    return percentile_interval(np.asarray(value[0]), drawn, config)


def concept_counts(
    judged: Sequence[JudgedBoxes],
    truths: Sequence[TrueBoxes],
    *,
    asked: Sequence[Sequence[int]],
    threshold: float,
) -> Float64[np.ndarray, "I 7 T"]:
    """For each image the counts of its asked classes: a pair of an image and a class is one sample.

    A box counts from `threshold` on, and a class is found where a box of it counts.
    """
    rows = []
    for found, truth, classes in zip(judged, truths, asked, strict=True):
        counts = ConceptCounts.zeros(threshold=threshold)
        for label in classes:
            mine, true = found.labels == label, truth.labels == label
            ious = box_ious(
                found.boxes_xyxy[mine].double().numpy(), truth.boxes_xyxy[true].double().numpy(), None
            )
            counts = counts.update(ious, found.scores[mine].double().numpy())
        rows.append(counts.counts)
    return np.stack(rows).astype(np.float64)


def as_the_gate_says(judged: JudgedBoxes, *, present: float, threshold: float) -> JudgedBoxes:
    """Boxes of classes whose presence score is at least `present`: those from `threshold` on and the best of each.

    Their scores are 1: the gate decides what is found, whatever threshold follows.
    """
    scores = dict(judged.presence.scores)
    best = best_region_scores(judged.scores, judged.labels, num_classes=len(scores))
    is_there = torch.tensor([scores[label] >= present for label in range(len(scores))])[judged.labels]
    counts = is_there & (judged.scores >= best[judged.labels].clamp_max(threshold))
    kept = judged.at(counts.nonzero()[:, 0])
    return replace(kept, scores=torch.ones_like(kept.scores))


def concept_intervals(
    rows: Float64[np.ndarray, "I 7 T"], config: BootstrapConfig
) -> tuple[Interval, Interval]:
    """Intervals of IL_MCC and cgF1."""
    return bootstrap(rows, il_mcc, config=config), bootstrap(rows, cg_f1, config=config)


def half_absent(
    truths: Sequence[TrueBoxes], classes: Sequence[int], *, seed: int = 0
) -> list[tuple[int, ...]]:
    """For each image the classes that are in it, and as many that are not, drawn by `seed`."""
    generator = np.random.default_rng(seed)
    asked = []
    for truth in truths:
        present = sorted(set(truth.labels.tolist()) & set(classes))
        absent = [label for label in classes if label not in present]
        drawn = generator.permutation(absent)[: len(present)].tolist()
        asked.append((*present, *sorted(drawn)))
    return asked


def spread_over_groups(found: Detections, competing: Int64[Tensor, " C"]) -> JudgedBoxes:
    """The detector's word where it was asked for groups: its score stands for every class of the group."""
    members = [(competing == competing[label]).nonzero()[:, 0] for label in found.labels.tolist()]
    places = torch.cat([torch.full_like(m, i) for i, m in enumerate(members)] or [torch.zeros(0).long()])
    labels = torch.cat(members or [torch.zeros(0).long()])
    every = replace(unjudged(found.at(places)), labels=labels)
    return every.at(torch.arange(len(every)))


def region_objects(regions: Sequence[Region], vocabulary: Vocabulary) -> FoundObjects:
    """Instances as the metric takes them."""
    place = {spec.id: label for label, spec in enumerate(vocabulary.classes)}
    xywh = np.array([region.bbox_xywh for region in regions], np.float64).reshape(-1, 4)
    return FoundObjects(
        labels=np.array([place[region.category_id] for region in regions], np.int64),
        scores=np.array([region.score for region in regions], np.float64),
        boxes_xyxy=boxes_xywh_to_xyxy(xywh),
        masks=[region.rle for region in regions],
    )
