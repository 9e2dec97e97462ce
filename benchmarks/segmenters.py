"""Every segmenter on the same held-out scenes of the miniature world, and what each mechanism of CASS and SC-CLIP adds.

Intervals are 95 %, bootstrap over scenes, 1000 resamples; a gain is paired by scene. All of it is about the drawn world
and says nothing about photographs.

python -m benchmarks.segmenters [--split test] [--scenes 300] [--json FILE] [--only segmenters,scclip,cass]
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.miniature_quality import Row, all_classes, figures_of, interval, markdown
from jobs.named_settings import named_segmenter
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.metrics.bootstrap import paired_bootstrap
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.segmenters.kinds import AnySegmenterConfig
from ovsops.training.quality import SegmentationStates, labelled_states
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import world_vocabulary

PLAIN = "plain CLIP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    parser.add_argument("--only", default="segmenters,scclip,cass")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split: Split = arguments.split
    bank = bank_of(draw_scene(seed) for seed in seeds_of(split)[: arguments.scenes])
    tables: dict[str, Callable[[SceneBank], list[Row]]] = {
        "segmenters": segmenter_table,
        "scclip": scclip_table,
        "cass": cass_table,
    }
    figures = {}
    for name in arguments.only.split(","):
        figures[name] = tables[name](bank)
        print(f"\n{name}: {len(bank)} scenes of the {split} split\n\n{markdown(figures[name])}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")


def segmenter_table(bank: SceneBank) -> list[Row]:
    """Each segmenter by its built-in setting; the gain is over plain CLIP."""
    dinov2 = {"vfm": {"source": "miniature:dinov2"}}
    variants: dict[str, AnySegmenterConfig] = {
        PLAIN: named_segmenter("clip_miniature"),
        "plain CLIP, values of the last block": named_segmenter("clip_miniature", last_block="values"),
        "SC-CLIP": named_segmenter("scclip_miniature"),
        "SC-CLIP, mode upstream": named_segmenter("scclip_miniature", mode="upstream"),
        "CASS with DINO": named_segmenter("cass_miniature"),
        "CASS with DINO, mode upstream": named_segmenter("cass_miniature", mode="upstream"),
        "CASS with DINOv2": named_segmenter("cass_miniature", **dinov2),
        "SigLIP 2 and DINOv2, fused": named_segmenter("fused_miniature"),
        "SAM 3": named_segmenter("sam3_miniature"),
        "SAM 3, its instances alone": named_segmenter("sam3_miniature", labels="instances"),
        "SAM 3, calibration safe": named_segmenter("sam3_miniature", calibration="safe"),
    }
    return _against(bank, variants, PLAIN)


def scclip_table(bank: SceneBank) -> list[Row]:
    """SC-CLIP with one mechanism off at a time; the gain is over all of it."""
    config = named_segmenter("scclip_miniature")
    changes: dict[str, dict[str, Any]] = {
        "all of SC-CLIP": {},
        "outliers not repaired": {"repair": False},
        "no first aggregation": {"first_aggregation": False},
        "attention by keys alone": {"similarity_attention": False},
        "no CLS residual": {"cls_residual": 0.0},
        "no multi-level branch": {"multi_level": False},
        "no second aggregation": {"second_aggregation": False},
        "the published code's outlier factor": {"lof": "simplified_sq"},
    }
    return _against(bank, {name: replace(config, **c) for name, c in changes.items()}, "all of SC-CLIP")


def cass_table(bank: SceneBank) -> list[Row]:
    """CASS with one mechanism off or another way at a time; the gain is over all of it."""
    config = named_segmenter("cass_miniature")
    changes: dict[str, dict[str, Any]] = {
        "all of CASS": {},
        "no graph of the VFM": {"fusion_factor": 0.0},
        "most similar heads paired": {"matching": "similar"},
        "heads paired by number": {"matching": "same"},
        "whole graphs, no low rank": {"energy": 1.0},
        "no eigenscaling": {"eigenscale": None},
        "no locality term": {"locality_std": None},
        "no prior of the whole picture": {"prior_weight": 0.0},
        "text stays where it is": {"text_weight": 0.0},
    }
    variants: dict[str, AnySegmenterConfig] = {n: replace(config, **c) for n, c in changes.items()}
    variants["DINOv2 as the VFM"] = replace(config, vfm=Checkpoint(source="miniature:dinov2"))
    return _against(bank, variants, "all of CASS")


def _against(bank: SceneBank, variants: Mapping[str, AnySegmenterConfig], base: str) -> list[Row]:
    vocabulary = world_vocabulary()
    states: dict[str, SegmentationStates] = {}
    rows = []
    for name, config in variants.items():
        states[name] = labelled_states(bank, vocabulary, config)
        row = figures_of(name, states[name])
        if name != base:
            gain = paired_bootstrap(states[name].areas, states[base].areas, all_classes)
            row[f"mIoU over {base}"] = interval(gain)
        rows.append(row)
    return rows


if __name__ == "__main__":
    main()
