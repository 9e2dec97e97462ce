"""Drawn scenes as a label run would leave them, whose every word is known: some captions say a wrong colour."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ovsops.masks.rle import mask_to_rle
from ovsops.miniature.attributes import CLASS_IDS
from ovsops.miniature.captions import region_phrase
from ovsops.miniature.scene import Scene, Thing, draw_scene
from ovsops.miniature.splits import seeds_of
from pipelines.labelled_shards import LabelRun
from pipelines.records import segmentation_record
from tests.tiny.labelled import TinyImage, label
from tests.tiny.shards import encode

WRONG_EVERY = 3
"""One caption in so many says another colour."""


@dataclass(frozen=True, kw_only=True)
class SceneImage(TinyImage):
    """A drawn scene in place of coloured blocks."""

    pixels: np.ndarray = field(repr=False)

    @property
    def data(self) -> bytes:
        return encode(self.pixels, quality=97)


def other_colour(name: str) -> str:
    """A colour that nobody confuses with it."""
    return "blue" if name in ("red", "orange", "yellow", "pink", "brown") else "red"


def caption_of(thing: Thing, *, is_wrong: bool = False) -> str:
    """`a big red striped ball`; with another colour where it is to be wrong."""
    said = replace(thing, colour=other_colour(thing.colour)) if is_wrong else thing
    return f"a {region_phrase(said, 'en', ('size', 'colour', 'pattern'))}"


def scene_image(seed: int) -> SceneImage:
    """A scene with its regions in the order they were drawn; every third caption of the world is wrong."""
    scene = draw_scene(seed)
    height, width = scene.image.shape[:2]
    regions = [
        _region(scene, place, is_wrong=(seed + place) % WRONG_EVERY == 0)
        for place in range(len(scene.things))
    ]
    return SceneImage(
        number=seed,
        key=f"{seed:08d}",
        pixels=scene.image,
        changes={"width": width, "height": height, "regions": [each for each in regions if each["area"]]},
    )


def _region(scene: Scene, place: int, *, is_wrong: bool) -> dict[str, Any]:
    thing = scene.things[place]
    mask = scene.instances == place + 1
    return {
        "category_id": CLASS_IDS[thing.noun],
        "prompt": thing.noun,
        "language": "en",
        "bbox": [float(number) for number in thing.box_xywh],
        "segmentation": segmentation_record(mask_to_rle(mask)),
        "area": int(mask.sum()),
        "score": 0.9,
        "caption_short": caption_of(thing, is_wrong=is_wrong),
        "rivals": [{"category_id": CLASS_IDS["ball"], "score": 0.25}] if thing.noun == "ring" else [],
        "decision": "accept",
        "reason_codes": [],
    }


def label_scenes(folder: Path, *, shards: int = 2, scenes: int = 4) -> LabelRun:
    """`folder/labels` and `folder/shards`, of held-out scenes."""
    seeds = seeds_of("test")[: shards * scenes]
    images = [[scene_image(seed) for seed in seeds[i * scenes : (i + 1) * scenes]] for i in range(shards)]
    return label(folder / "labels", folder / "shards", images)
