"""Training sets of a few drawn scenes, and a program of a tiny FG-CLIP 2 that learns from them."""

import hashlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ovsops.backbones.miniature import write_word_tokenizer
from ovsops.losses.gather import Gather
from ovsops.miniature.attributes import COLOURS
from ovsops.miniature.captions import region_long, region_phrase, scene_caption
from ovsops.miniature.samples import scene_sample
from ovsops.miniature.scene import Scene, SceneConfig, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.training.fgclip2_sets import SetBank, SetRegions
from ovsops.training.fgclip2_stage1 import FGCLIP2_WORDS
from ovsops.training.fgclip2_stage2 import FgClip2Stage2Config, FgClip2Stage2Program
from ovsops.training.loop import Program
from pipelines.training_sets.record import RegionNegatives, TrainingRegion, TrainingSample
from pipelines.writers import finehard_json, finehard_parquet, webdataset
from pipelines.writers.whole_files import ImageFolder, write_index
from tests.ovsops.training.fgclip2_world import tiny_model

NUM_IMAGES = 8
WRITERS = {
    "finehard-json": finehard_json.finehard_json_writer,
    "finehard-parquet": finehard_parquet.finehard_parquet_writer,
    "webdataset": webdataset.webdataset_writer,
}


def drawn_scenes(count: int = NUM_IMAGES) -> list[Scene]:
    """Scenes of two shapes."""
    return [
        draw_scene(seed, SceneConfig(size_hw=((64, 64), (64, 96))[place % 2], max_things=3))
        for place, seed in enumerate(seeds_of("train")[:count])
    ]


def drawn_sample(scene: Scene, **changes: Any) -> TrainingSample:
    """A sample whose first region has ten negatives; the others are phrases."""
    member = scene_sample(scene)
    height, width, _ = scene.image.shape
    regions = []
    for place, thing in enumerate(scene.things):
        x, y, w, h = thing.box_xywh
        others = [colour.name for colour in COLOURS if colour.name != thing.colour]
        texts = (*(f"{name} {thing.noun}" for name in others), f"{thing.colour} sky", f"{thing.colour} water")
        regions.append(
            TrainingRegion(
                region_uid=f"{scene.seed}-{place}",
                box=(x / width, y / height, (x + w) / width, (y + h) / height),
                score=1 - place / 10,
                category_id=1,
                category=thing.noun,
                short_expr=region_phrase(thing, "en", ("colour",)),
                long_expr=region_long(scene, place, "en").lower(),
                negatives=RegionNegatives(texts=texts, types=("colour",) * 10) if place == 0 else None,
            )
        )
    fields: dict[str, Any] = {
        "image_uid": f"scene-{scene.seed}",
        "key": member["__key__"],
        "data": member["png"],
        "extension": "png",
        "sha256": hashlib.sha256(member["png"]).hexdigest(),
        "width": width,
        "height": height,
        "language": "en",
        "caption_short": scene_caption(scene, "en", "short").lower(),
        "caption_long": scene_caption(scene, "en", "long").lower(),
        "regions": tuple(regions),
    }
    return TrainingSample(**fields | changes)


def write_set(folder: Path, format_name: str, samples: Sequence[TrainingSample]) -> Path:
    """The samples as the project writes them."""
    with WRITERS[format_name](folder, "train") as writer:
        for sample in samples:
            if format_name != "webdataset":
                ImageFolder(folder).put(sample)
            writer.add(sample)
        write_index(folder, format_name, writer.finish(), {})
    return folder


@dataclass(frozen=True, kw_only=True)
class TinySetRecipe:
    """Builds the program on a worker; may end its process at a step, once."""

    seed: int = 0
    signal_at: int | None = None
    marker: str = ""
    config: FgClip2Stage2Config = field(
        default_factory=lambda: FgClip2Stage2Config(batch_size=2, too_few="skip")
    )

    def build_from_set(
        self, bank: SetBank, work_folder: Path, *, gather: Gather, world_size: int, device: str
    ) -> Program:
        write_word_tokenizer(work_folder, FGCLIP2_WORDS)
        source = SetRegions(bank, batch_size=2, seed=self.seed, patch_size=16, world_size=world_size)
        return _Killed(source, self.config, tiny_model(), work_folder, self)


class _Killed(FgClip2Stage2Program):
    def __init__(self, source: Any, config: Any, model: Any, folder: Path, recipe: TinySetRecipe) -> None:
        super().__init__(source, config, model, folder)
        self.recipe = recipe

    def losses(self, step: int) -> Any:
        recipe = self.recipe
        if step == recipe.signal_at and not Path(recipe.marker).exists():
            Path(recipe.marker).touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return super().losses(step)
