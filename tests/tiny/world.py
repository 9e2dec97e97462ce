"""Segmenters that know the truth of drawn scenes, told from their pixels, and what they make of it."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ovsops.annotators.annotator import Annotator
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionConfig
from ovsops.miniature.attributes import CLASS_NAMES, NOUN_WORDS
from ovsops.miniature.scene import SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.text.vocabulary import load_vocabulary
from pipelines.label import LabelJob, run_label
from pipelines.records import RegionClass
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions
from pipelines.truth import benchmarks
from pipelines.world_shards import write_world_shards

SMALL = SceneConfig(size=48, max_things=3)
SEEDS = tuple(seeds_of("test")[:6])
WORLD = Path(benchmarks.__file__).parents[2] / "ovsops" / "text" / "data" / "world.yaml"
CLASSES = tuple(
    RegionClass(id=i, kind="thing" if name in NOUN_WORDS else "stuff", prompt=name, language="en")
    for i, name in enumerate(CLASS_NAMES, 1)
)
Answer = Callable[[np.ndarray], np.ndarray]
"""True semantic map to the map that is answered."""


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


@dataclass
class OracleFactory:
    """Answers `answer(truth)` for scenes that it knows, with one score everywhere."""

    maps: Mapping[str, np.ndarray]
    score: float = 0.9

    def build(self) -> Annotator:
        return Annotator(segmenter=self)

    def segment(self, images: Sequence[np.ndarray]) -> list[ClassMap]:
        return [
            ClassMap(
                labels=self.maps[digest(image)].astype(np.uint16),
                scores=np.full(image.shape[:2], self.score, np.float32),
            )
            for image in images
        ]


def true_maps(seeds: Sequence[int] = SEEDS, config: SceneConfig = SMALL) -> dict[str, np.ndarray]:
    scenes = [draw_scene(seed, config) for seed in seeds]
    return {digest(scene.image): scene.semantic for scene in scenes}


def label_world(
    folder: Path, out: Path, answer: Answer, *, score: float = 0.9, vocabulary: Any = None, **changes: Any
) -> None:
    """Label the shards of `folder` with what `answer` makes of their truth."""
    patterns = [str(folder / "*.tar")]
    recipe = {
        "input": {"shards": patterns},
        "vocabulary": vocabulary or load_vocabulary(WORLD).to_mapping(),
        "segmenter": {k: {"source": f"nowhere/{k}"} for k in ("siglip", "dino", "mapper")},
    }
    job = LabelJob(
        output=str(out),
        shards=tuple(expand_inputs(patterns, StorageOptions())),
        annotator=OracleFactory({key: answer(found) for key, found in true_maps().items()}, score),
        segmenter_name="oracle",
        classes=CLASSES,
        regions=RegionConfig(min_region_share=0.0),
        batch=BatchConfig(max_images=4, decode_workers=1),
        manifest={
            "schema_version": SCHEMA_VERSION,
            "recipe": {**recipe, "answer": str(score)},
            "recipe_hash": "abc",
            "settings": {"output": str(out)},
            "vocabulary": recipe["vocabulary"],
        },
        **changes,
    )
    run_label(job, InlineEngine(job.storage), run="test")


def write_world(folder: Path, seeds: Sequence[int] = SEEDS) -> None:
    write_world_shards(folder, seeds, scenes_per_shard=4, config=SMALL)
