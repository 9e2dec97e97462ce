"""A detector that knows the true things of drawn scenes, told from their pixels, and what a test makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ovsops.annotators.annotation import ImagePresence
from ovsops.annotators.annotator import Annotator, Found
from ovsops.annotators.names import ClassPrompt
from ovsops.annotators.regions import InstancesConfig
from ovsops.backbones.detections import Detections
from ovsops.masks.class_map import ClassMap
from ovsops.masks.rle import Rle, masks_to_rles
from ovsops.miniature.attributes import CLASS_IDS
from ovsops.miniature.scene import draw_scene
from ovsops.regions.instances import InstanceConfig
from ovsops.text.vocabulary import load_vocabulary
from pipelines.label import LabelJob, run_label
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions
from tests.tiny.world import CLASSES, SEEDS, SMALL, WORLD, digest


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One thing that the detector says it saw."""

    label: int
    """Place in the vocabulary, from 0."""
    box_xyxy: tuple[float, float, float, float]
    mask: Rle
    score: float = 0.9


@dataclass(frozen=True, kw_only=True)
class SceneAnswer:
    """What is said of a scene."""

    things: tuple[Thing, ...]
    presence: ImagePresence = field(default_factory=ImagePresence)


BoxAnswer = Callable[[SceneAnswer], SceneAnswer]
"""The truth to what is answered."""


def true_answers(seeds: Sequence[int] = SEEDS) -> dict[str, SceneAnswer]:
    """The true things of scenes by the digest of their pixels."""
    answers = {}
    for seed in seeds:
        scene = draw_scene(seed, SMALL)
        things = []
        for number, thing in enumerate(scene.things, 1):
            mask = scene.instances == number
            rows, columns = mask.any(axis=1).nonzero()[0], mask.any(axis=0).nonzero()[0]
            box = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
            (rle,) = masks_to_rles(mask[None])
            things.append(Thing(label=CLASS_IDS[thing.noun] - 1, box_xyxy=box, mask=rle))
        answers[digest(scene.image)] = SceneAnswer(things=tuple(things))
    return answers


@dataclass
class TrueThingsFactory:
    """Answers for scenes that it knows: stuff from the true map, things as boxes with masks."""

    answers: Mapping[str, SceneAnswer]

    def build(self) -> Annotator:
        return Annotator(finder=self)

    def segment_and_find(self, images: Sequence[np.ndarray]) -> list[tuple[ClassMap, Found]]:
        return [self._said(image) for image in images]

    def _said(self, image: np.ndarray) -> tuple[ClassMap, Found]:
        answer = self.answers[digest(image)]
        order = sorted(answer.things, key=lambda thing: -thing.score)
        found = Found(
            detections=Detections(
                boxes_xyxy=torch.tensor([thing.box_xyxy for thing in order]).reshape(-1, 4),
                scores=torch.tensor([thing.score for thing in order]),
                labels=torch.tensor([thing.label for thing in order], dtype=torch.int64),
            ),
            prompts=tuple(
                ClassPrompt(label=thing.label, prompt=CLASSES[thing.label].prompt, language="en")
                for thing in order
            ),
            masks=tuple(thing.mask for thing in order),
            presence=answer.presence,
        )
        nothing = ClassMap(
            labels=np.zeros(image.shape[:2], np.uint16), scores=np.zeros(image.shape[:2], np.float32)
        )
        return nothing, found


def label_boxes(folder: Path, out: Path, answer: BoxAnswer) -> None:
    """Label the shards of `folder` with what `answer` makes of their true things."""
    patterns = [str(folder / "*.tar")]
    recipe = {
        "input": {"shards": patterns},
        "vocabulary": load_vocabulary(WORLD).to_mapping(),
        "segmenter": {k: {"source": f"nowhere/{k}"} for k in ("siglip", "dino", "mapper")},
    }
    job = LabelJob(
        output=str(out),
        shards=tuple(expand_inputs(patterns, StorageOptions())),
        annotator=TrueThingsFactory({key: answer(found) for key, found in true_answers().items()}),
        segmenter_name="nothing",
        detector_name="oracle",
        classes=CLASSES,
        instances=InstancesConfig(checks=InstanceConfig(nms_iou=None)),
        batch=BatchConfig(max_images=4, decode_workers=1),
        manifest={
            "schema_version": SCHEMA_VERSION,
            "recipe": recipe,
            "recipe_hash": "abc",
            "settings": {"output": str(out)},
            "vocabulary": recipe["vocabulary"],
        },
    )
    run_label(job, InlineEngine(job.storage), run="test")
