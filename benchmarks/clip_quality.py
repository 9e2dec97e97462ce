"""What the miniature CLIP and DINO know, on held-out scenes: every figure of their model cards.

All of it is about the drawn world and says nothing about photographs.

python -m benchmarks.clip_quality [--checkpoints FOLDER] [--split test] [--scenes 300] [--json FILE] [--only NAMES]
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.miniature_quality import PROBE_SCENES, Row, markdown
from ovsops.backbones.miniature import miniature_clip, miniature_dino, save_half, write_clip_tokenizer
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.metrics.probes import group_accuracy
from ovsops.metrics.segmentation import mean_iou
from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.miniature.words import WORDS
from ovsops.training.dense_quality import (
    clip_retrieval,
    key_tokens,
    load_clip,
    load_keys,
    plain_patch_names,
)
from ovsops.training.quality import ALL_IDS, STUFF_IDS, patch_set, probe_accuracy
from ovsops.training.scenes import NUM_THING_CLASSES, SceneBank, bank_of

THING_IDS = range(1, NUM_THING_CLASSES + 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoints", type=Path, help="clip/ and dino/; the shipped ones by default")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    parser.add_argument("--only", default="", help="retrieval,patches,probes")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split: Split = arguments.split
    tables: dict[str, Callable[[Path], list[Row]]] = {
        "retrieval": partial(retrieval_table, arguments.checkpoints, split),
        "patches": partial(patch_table, arguments.checkpoints, split, arguments.scenes),
        "probes": partial(probe_table, arguments.checkpoints, split, arguments.scenes),
    }
    chosen = arguments.only.split(",") if arguments.only else list(tables)
    figures = {}
    with TemporaryDirectory() as untrained:
        for name in chosen:
            figures[name] = tables[name](Path(untrained))
            print(
                f"\n{name}: {256 if name == 'retrieval' else arguments.scenes} scenes of the {split} split\n"
            )
            print(markdown(figures[name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")


def retrieval_table(folder: Path | None, split: Split, _untrained: Path) -> list[Row]:
    """R@1 among 256 by long captions."""
    bank = scenes_of(split, 256)
    towers = load_clip(miniature_checkpoint("clip", folder))
    rows: list[Row] = []
    for language in LANGUAGES:
        to_text, to_image = clip_retrieval(towers, bank, language)
        rows.append(
            {
                "language": language,
                "R@1 image to text": to_text.recall_at(1),
                "R@1 text to image": to_image.recall_at(1),
                "R@5 image to text": to_text.recall_at(5),
            }
        )
    return rows


def patch_table(folder: Path | None, split: Split, num_scenes: int, untrained: Path) -> list[Row]:
    """Patches named as they come out of the last block, by CLIP and by its random weights."""
    save_half(miniature_clip(len(WORDS), seed=0), untrained / "clip")
    write_clip_tokenizer(untrained / "clip", WORDS)
    bank = scenes_of(split, num_scenes)
    rows: list[Row] = []
    for name, place in (
        ("CLIP", miniature_checkpoint("clip", folder)),
        ("random weights", untrained / "clip"),
    ):
        towers = load_clip(place)
        for language in LANGUAGES:
            found = plain_patch_names(towers, bank, language)
            rows.append(
                {
                    "weights": name,
                    "language": language,
                    "noun patches": group_accuracy(found.counts, THING_IDS),
                    "stuff patches": group_accuracy(found.counts, STUFF_IDS),
                    "mIoU on the patch grid": float(mean_iou(found.areas, ALL_IDS)),
                }
            )
    return rows


def probe_table(folder: Path | None, split: Split, num_scenes: int, untrained: Path) -> list[Row]:
    """Probes on the keys of DINO's last block, and on those of its random weights."""
    save_half(miniature_dino(seed=0), untrained / "dino")
    taught = bank_of(draw_scene(seed) for seed in seeds_of("train")[-PROBE_SCENES:])
    bank = scenes_of(split, num_scenes)
    rows: list[Row] = []
    for name, place in (
        ("DINO", miniature_checkpoint("dino", folder)),
        ("random weights", untrained / "dino"),
    ):
        vfm = load_keys(place)
        train, test = (patch_set(key_tokens(vfm, s), s, patch_size=vfm.patch_size) for s in (taught, bank))
        rows.append({"weights": name, **probe_accuracy(train, test)})
    return rows


def scenes_of(split: Split, count: int) -> SceneBank:
    """The first scenes of a split."""
    return bank_of(draw_scene(seed) for seed in seeds_of(split)[:count])


if __name__ == "__main__":
    main()
