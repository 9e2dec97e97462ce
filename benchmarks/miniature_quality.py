"""What miniature checkpoints know, on held-out scenes: every figure of their model cards.

A figure stands with its 95 % interval (bootstrap over scenes, 1000 resamples) where it is a figure of scenes. All of it
is about the drawn world and says nothing about photographs.

python -m benchmarks.miniature_quality [--checkpoints FOLDER] [--split test] [--scenes 300] [--json FILE] [--only NAMES]
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch

from ovsops.backbones.miniature import miniature_dinov2, save_half
from ovsops.backbones.shipped import miniature_checkpoints
from ovsops.masks.refine import PamrConfig
from ovsops.metrics.bootstrap import Interval, bootstrap, paired_bootstrap
from ovsops.metrics.boundary import mean_boundary_f
from ovsops.metrics.segmentation import mean_iou
from ovsops.miniature.attributes import CLASS_NAMES, LANGUAGES
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.segmenters.config import CleaningConfig, ProxyAttentionConfig
from ovsops.text.vocabulary import Vocabulary
from ovsops.training.quality import (
    ALL_IDS,
    STUFF_IDS,
    SegmentationStates,
    constant_map,
    dino_tokens,
    grid_ceiling,
    load_dino,
    load_siglip,
    patch_set,
    probe_accuracy,
    region_nouns,
    retrieval,
    segmentation,
    shuffled_names,
)
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import shipped_segmenter, world_vocabulary

PROBE_SCENES = 300
"""Training scenes whose patches the probes learn from."""
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoints", type=Path, help="siglip2/, dinov2/, mapper/; the shipped ones by default"
    )
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    parser.add_argument("--only", default="", help="retrieval,regions,probes,fusion,ablations,controls")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.checkpoints or miniature_checkpoints()
    split: Split = arguments.split
    bank = bank_of(draw_scene(seed) for seed in seeds_of(split)[: arguments.scenes])
    tables: dict[str, Callable[[], list[Row]]] = {
        "retrieval": partial(retrieval_table, folder, split),
        "regions": partial(region_table, folder, bank),
        "probes": partial(probe_table, folder, bank),
        "fusion": partial(fusion_table, folder, bank),
        "ablations": partial(ablation_table, folder, bank),
        "controls": partial(control_table, folder, bank),
    }
    chosen = arguments.only.split(",") if arguments.only else list(tables)
    figures = {}
    for name in chosen:
        figures[name] = tables[name]()
        print(f"\n{name}: {len(bank) if name != 'retrieval' else 256} scenes of the {split} split\n")
        print(markdown(figures[name]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")


def retrieval_table(folder: Path, split: Split) -> list[Row]:
    """R@1 among 256 by long captions."""
    bank = bank_of(draw_scene(seed) for seed in seeds_of(split)[:256])
    towers = load_siglip(folder / "siglip2")
    rows = []
    for language in LANGUAGES:
        to_text, to_image = retrieval(towers, bank, language)
        rows.append(
            {
                "language": language,
                "R@1 image to text": to_text.recall_at(1),
                "R@1 text to image": to_image.recall_at(1),
                "R@5 image to text": to_text.recall_at(5),
            }
        )
    return rows


def region_table(folder: Path, bank: SceneBank) -> list[Row]:
    """Noun of every thing from its true mask."""
    counts = region_nouns(load_siglip(folder / "siglip2"), bank)
    return [
        {
            "language": language,
            "regions": int(found.counts[0].sum()),
            "noun top-1": found.top_1,
            "same answer in both languages": found.agreement,
        }
        for language, found in counts.items()
    ]


def probe_table(folder: Path, bank: SceneBank) -> list[Row]:
    """Patch probes of the DINOv2 checkpoint beside those of random weights."""
    train = bank_of(draw_scene(seed) for seed in seeds_of("train")[-PROBE_SCENES:])
    with TemporaryDirectory() as place:
        save_half(miniature_dinov2(seed=0), Path(place))
        untrained = load_dino(Path(place))
    rows = []
    for name, dino in (("checkpoint", load_dino(folder / "dinov2")), ("random weights", untrained)):
        train_set, test_set = (
            patch_set(dino_tokens(dino, scenes), scenes, patch_size=dino.patch_size)
            for scenes in (train, bank)
        )
        rows.append({"weights": name, **probe_accuracy(train_set, test_set)})
    return rows


def fusion_table(folder: Path, bank: SceneBank) -> list[Row]:
    """mIoU over every share of DINO, the shipped share, Chinese prompts, and what the patch grid allows."""
    config, vocabulary = shipped_segmenter(folder), world_vocabulary()
    alphas = [step / 10 for step in range(11)]
    curve = segmentation(bank, vocabulary, {f"alpha {a}": replace(config, alpha=a) for a in alphas})
    shipped = segmentation(bank, vocabulary, {"shipped": config}, with_boundary=True)["shipped"]
    chinese = segmentation(bank, vocabulary, {"zh": config}, language="zh", with_boundary=True)["zh"]
    things = segmentation(bank, things_vocabulary(vocabulary), {"things": config})["things"]
    rows = [figures_of(name, states) for name, states in curve.items()]
    rows.append(figures_of("shipped, en", shipped))
    rows.append(figures_of("shipped, zh", chinese))
    rows.append(figures_of("shipped, en, vocabulary of nouns with the stuff as background prompts", things))
    kinds: tuple[Literal["hard", "soft"], ...] = ("hard", "soft")
    for kind in kinds:
        rows.append(
            figures_of(f"ceiling of the patch grid, {kind}", grid_ceiling(bank, grid=config.grid, kind=kind))
        )
    parts = {name: curve[f"alpha {a}"] for name, a in (("SigLIP alone", 0.0), ("DINO alone", 1.0))}
    for name, states in parts.items():
        gain = paired_bootstrap(shipped.areas, states.areas, all_classes)
        rows.append({"labels": f"shipped over {name}", "mIoU": interval(gain)})
    return rows


def ablation_table(folder: Path, bank: SceneBank) -> list[Row]:
    """Each piece on its own, against the shipped segmenter."""
    config, vocabulary = shipped_segmenter(folder), world_vocabulary()
    variants = {
        "shipped": config,
        "with background cleaning": replace(config, cleaning=CleaningConfig()),
        "with class prior 0.3": replace(config, prior_weight=0.3),
        "with proxy attention": replace(config, proxy_attention=ProxyAttentionConfig()),
        "with PAMR": replace(config, refinement=PamrConfig()),
        "with windows (image doubled, 4 to 9 windows)": replace(
            config, short_side=256, window=128, stride=64
        ),
        "one view of 256 px": replace(config, short_side=256, window=256, stride=128, grid=32),
    }
    states = segmentation(bank, vocabulary, variants)
    rows = []
    for name, found in states.items():
        row = figures_of(name, found)
        if name != "shipped":
            row["change of mIoU"] = interval(
                paired_bootstrap(found.areas, states["shipped"].areas, all_classes)
            )
        rows.append(row)
    return rows


def control_table(folder: Path, bank: SceneBank) -> list[Row]:
    """What must score low: shuffled class names, one class everywhere."""
    config, vocabulary = shipped_segmenter(folder), world_vocabulary()
    shuffled = segmentation(bank, shuffled_names(vocabulary), {"s": config})["s"]
    constant = constant_map(bank, class_id=CLASS_NAMES.index("grass") + 1)
    return [figures_of("shuffled class names", shuffled), figures_of("grass everywhere", constant)]


def things_vocabulary(vocabulary: Vocabulary) -> Vocabulary:
    """The nouns as classes, the stuff as background prompts."""
    stuff = [c for c in vocabulary.classes if c.kind == "stuff"]
    background = {lang: tuple(p for c in stuff for p in c.prompts[lang]) for lang in vocabulary.languages}
    return replace(
        vocabulary, classes=tuple(c for c in vocabulary.classes if c.kind == "thing"), background=background
    )


def figures_of(name: str, states: SegmentationStates) -> Row:
    """One row: mIoU of all, of stuff, of nouns and background."""
    row: Row = {
        "labels": name,
        "mIoU": interval(bootstrap(states.areas, all_classes)),
        "stuff": interval(bootstrap(states.areas, partial(mean_iou, ids=STUFF_IDS))),
        "nouns + background": interval(bootstrap(states.with_background, mean_iou)),
    }
    if states.boundary is not None:
        row["boundary F"] = interval(bootstrap(states.boundary, partial(mean_boundary_f, ids=ALL_IDS)))
    return row


def all_classes(areas: np.ndarray) -> np.ndarray:
    """mIoU of the twenty classes."""
    return mean_iou(areas, ALL_IDS)


def interval(found: Interval) -> dict[str, float]:
    """Value and 95 % interval as plain numbers."""
    return {"value": float(found.value), "low": float(found.low), "high": float(found.high)}


def markdown(rows: list[Row]) -> str:
    """A table; intervals as `value (low to high)`."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(name, "")) for name in columns) + " |" for row in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
