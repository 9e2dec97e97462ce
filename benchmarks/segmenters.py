"""Every segmenter on the same held-out scenes of the miniature world, what each mechanism of CASS and SC-CLIP adds,
both on SigLIP 2, and what PAMR adds to each.

Intervals are 95 %, bootstrap over scenes, 1000 resamples; a gain is paired by scene. All of it is about the drawn world
and says nothing about photographs.

python -m benchmarks.segmenters [--split test] [--scenes 300] [--json FILE] [--only segmenters,scclip,cass,siglip2,pamr]
"""

import argparse
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.miniature_quality import Row, all_classes, figures_of, interval, markdown
from jobs.named_settings import named_segmenter
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.masks.refine import PamrConfig
from ovsops.metrics.bootstrap import paired_bootstrap
from ovsops.metrics.boundary import mean_boundary_f
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.segmenters.kinds import AnySegmenterConfig
from ovsops.training.quality import ALL_IDS, SegmentationStates, labelled_states
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import world_vocabulary

PLAIN = "plain CLIP"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    parser.add_argument("--only", default="segmenters,scclip,cass,siglip2,pamr")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    split: Split = arguments.split
    bank = bank_of(draw_scene(seed) for seed in seeds_of(split)[: arguments.scenes])
    tables: dict[str, Callable[[SceneBank], list[Row]]] = {
        "segmenters": segmenter_table,
        "scclip": scclip_table,
        "cass": cass_table,
        "siglip2": siglip2_table,
        "pamr": pamr_table,
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


def siglip2_table(bank: SceneBank) -> list[Row]:
    """SC-CLIP and CASS on SigLIP 2, as the settings for it go; the gain is over SigLIP 2's plain patches."""
    siglip2 = {"clip": {"source": "miniature:siglip2"}}
    cass: dict[str, Any] = {**siglip2, "vfm": {"source": "miniature:dinov2"}, "text_weight": 0.0}
    variants: dict[str, AnySegmenterConfig] = {
        "plain SigLIP 2": named_segmenter("clip_miniature", **siglip2),
        "SC-CLIP on SigLIP 2": named_segmenter("scclip_miniature", **siglip2, residual_source="mean"),
        "the same without residual": named_segmenter("scclip_miniature", **siglip2, cls_residual=0.0),
        "CASS on SigLIP 2 and DINOv2": named_segmenter("cass_miniature", **cass),
        "the same, text moves as with CLIP": named_segmenter(
            "cass_miniature", **(cass | {"text_weight": 0.04})
        ),
        "the same without prior": named_segmenter("cass_miniature", **cass, prior_weight=0.0),
    }
    return _against(bank, variants, "plain SigLIP 2")


def pamr_table(bank: SceneBank) -> list[Row]:
    """Each segmenter with PAMR; gains are over itself without."""
    every = PamrConfig()
    winners = PamrConfig(dilations=(1, 2, 4, 6, 12), resolution_share=0.5, winning_margin=0.05)
    names = {
        PLAIN: "clip_miniature",
        "SC-CLIP": "scclip_miniature",
        "CASS with DINO": "cass_miniature",
        "SigLIP 2 and DINOv2, fused": "fused_miniature",
        "SAM 3": "sam3_miniature",
    }
    vocabulary, rows = world_vocabulary(), []
    for name, setting in names.items():
        config = named_segmenter(setting)
        without = labelled_states(bank, vocabulary, config)
        ways = {"with PAMR": every, "with PAMR of winners at half size": winners}
        for way, refinement in ways.items():
            states = labelled_states(bank, vocabulary, replace(config, refinement=refinement))
            row = figures_of(f"{name}, {way}", states)
            row["mIoU over without"] = interval(paired_bootstrap(states.areas, without.areas, all_classes))
            assert states.boundary is not None
            assert without.boundary is not None
            row["boundary F over without"] = interval(
                paired_bootstrap(states.boundary, without.boundary, all_outlines)
            )
            rows.append(row)
    return rows


def all_outlines(counts: np.ndarray) -> np.ndarray:
    """Boundary F of the twenty classes."""
    return mean_boundary_f(counts, ids=ALL_IDS)


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
