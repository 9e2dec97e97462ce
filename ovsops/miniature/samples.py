"""A scene as the members of a WebDataset sample: `<key>.png` and its truth, `<key>.json`.

The truth holds the seed, the size, every thing with its attributes, box, area, mask and phrases, the backgrounds with
their masks, relations and captions. `ovsops.miniature.truth.read_truth` reads it back. `caption_short` and
`caption_long` repeat the English captions where readers of sidecars look for them.
"""

import json
from typing import Any, TypedDict

import numpy as np

from ovsops.masks.rle import label_map_to_rles
from ovsops.miniature.attributes import CLASS_IDS, LANGUAGES
from ovsops.miniature.captions import region_long, region_phrase, scene_caption
from ovsops.miniature.png import image_to_png
from ovsops.miniature.scene import Scene

FORMAT = "ovsops-world-1"
"""Name and version of the truth's format."""


class SceneSample(TypedDict):
    """Members by extension, and the key they share."""

    __key__: str
    png: bytes
    json: bytes


def scene_sample(scene: Scene) -> SceneSample:
    """The sample of a scene; equal scenes give equal bytes."""
    truth = json.dumps(scene_truth(scene), ensure_ascii=False, separators=(",", ":"))
    return {"__key__": f"{scene.seed:08d}", "png": image_to_png(scene.image), "json": truth.encode()}


def scene_truth(scene: Scene) -> dict[str, Any]:
    """Plain data of all that is true of a scene."""
    num_things = len(scene.things)
    regions = scene.instances.copy()
    for number, name in enumerate(scene.stuffs, num_things + 1):
        np.copyto(regions, np.uint8(number), where=scene.semantic == CLASS_IDS[name])
    rles = [rle.to_coco() for rle in label_map_to_rles(regions, num_things + len(scene.stuffs))]
    captions = {
        language: {length: scene_caption(scene, language, length) for length in ("short", "long")}
        for language in LANGUAGES
    }
    return {
        "format": FORMAT,
        "seed": scene.seed,
        "size_hw": list(scene.semantic.shape),
        "caption_short": captions["en"]["short"],
        "caption_long": captions["en"]["long"],
        "captions": captions,
        "things": [
            {
                "noun": thing.noun,
                "colour": thing.colour,
                "pattern": thing.pattern,
                "material": thing.material,
                "size": thing.size,
                "box_xywh": list(thing.box_xywh),
                "area": thing.area,
                "hidden_share": thing.hidden_share,
                "phrases": {
                    language: {
                        "short": region_phrase(thing, language),
                        "long": region_long(scene, i, language),
                    }
                    for language in LANGUAGES
                },
                "segmentation": rles[i],
            }
            for i, thing in enumerate(scene.things)
        ],
        "stuffs": [
            {"name": name, "segmentation": rles[num_things + i]} for i, name in enumerate(scene.stuffs)
        ],
        "relations": [
            {"subject": relation.subject, "name": relation.name, "object": relation.object}
            for relation in scene.relations
        ],
    }
