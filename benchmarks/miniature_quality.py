"""What miniature checkpoints know, on held-out scenes: every figure of their model cards.

A figure stands with its 95 % interval: bootstrap over scenes, 1000 resamples; for retrieval over queries, whose gallery
stays. All of it is about the drawn world and says nothing about photographs.

`--against FOLDER` judges a retraining: it measures FOLDER's checkpoints, too, and exits with 1 where a figure of them
lies outside the interval of the first ones. An interval is about other scenes, not about other seeds of the training: a
retraining from another seed may lie outside and be no worse.

python -m benchmarks.miniature_quality [--checkpoints FOLDER] [--against FOLDER] [--split test] [--scenes 300]
    [--json FILE] [--only NAMES]
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
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
from ovsops.metrics.regions import region_accuracy
from ovsops.metrics.retrieval import ranks
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
    caption_similarity,
    constant_map,
    dino_tokens,
    grid_ceiling,
    load_dino,
    load_siglip,
    patch_set,
    probe_counts,
    region_nouns_by_scene,
    segmentation,
    share_right,
    shuffled_names,
)
from ovsops.training.scenes import SceneBank, bank_of
from ovsops.training.shipping import shipped_segmenter, world_vocabulary

PROBE_SCENES = 300
"""Training scenes whose patches the probes learn from; as many as are tested where those are fewer."""
Row = dict[str, Any]


TABLES = ("retrieval", "regions", "probes", "fusion", "ablations", "controls")
NUM_CANDIDATES = 256
"""Scenes of a retrieval gallery, where there are as many."""


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--checkpoints", type=Path, help="siglip2/, dinov2/, mapper/; the shipped ones by default"
    )
    parser.add_argument("--against", type=Path, help="others of the same layout, judged by the first ones")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    parser.add_argument("--only", default=",".join(TABLES), help="tables by name, with commas between")
    arguments = parser.parse_args(words)
    chosen = arguments.only.split(",")
    if unknown := [name for name in chosen if name not in TABLES]:
        parser.error(
            f"--only {arguments.only}: {', '.join(unknown)} is no table; there are {', '.join(TABLES)}"
        )
    torch.set_num_threads(1)
    split: Split = arguments.split
    folder = arguments.checkpoints or miniature_checkpoints()
    seeds = seeds_of(split)[: arguments.scenes]
    bank = bank_of(draw_scene(seed) for seed in seeds)
    gallery = bank_of(draw_scene(seed) for seed in seeds[:NUM_CANDIDATES])
    found = {}
    for place in dict.fromkeys((folder, arguments.against or folder)):
        found[place] = measure(place, chosen, bank, gallery, title=f"scenes of the {split} split: {place}")
    if arguments.json:
        told = found[folder] if arguments.against is None else {str(k): v for k, v in found.items()}
        arguments.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if arguments.against is None:
        return 0
    outside = [
        row for name in chosen for row in compare(name, found[folder][name], found[arguments.against][name])
    ]
    print(f"\n{arguments.against}: {len(outside)} figures outside the interval of {folder}\n")
    if outside:
        print(markdown(outside))
    return 1 if outside else 0


def measure(
    folder: Path, chosen: Sequence[str], bank: SceneBank, gallery: SceneBank, *, title: str
) -> dict[str, list[Row]]:
    """The tables of one folder, printed as they come."""
    tables: dict[str, Callable[[], list[Row]]] = {
        "retrieval": partial(retrieval_table, folder, gallery),
        "regions": partial(region_table, folder, bank),
        "probes": partial(probe_table, folder, bank),
        "fusion": partial(fusion_table, folder, bank),
        "ablations": partial(ablation_table, folder, bank),
        "controls": partial(control_table, folder, bank),
    }
    figures = {}
    for name in chosen:
        figures[name] = tables[name]()
        print(f"\n{name}, {len(gallery if name == 'retrieval' else bank)} {title}\n")
        print(markdown(figures[name]), flush=True)
    return figures


def compare(table: str, rows: Sequence[Row], others: Sequence[Row]) -> Iterator[Row]:
    """Figures of `others` outside the interval of the same figure of `rows`, a row each; nan agrees with nan alone."""
    for row, other in zip(rows, others, strict=True):
        label = next(iter(row.values()))
        for column, found in row.items():
            if not isinstance(found, dict):
                continue
            value = other[column]["value"]
            if math.isnan(value) and math.isnan(found["value"]):
                continue
            if not found["low"] - 1e-12 <= value <= found["high"] + 1e-12:
                yield {"table": table, "row": label, "figure": column, "expected": found, "found": value}


def retrieval_table(folder: Path, gallery: SceneBank) -> list[Row]:
    """R@1 and R@5 by long captions among the gallery's."""
    towers = load_siglip(folder / "siglip2")
    rows = []
    for language in LANGUAGES:
        similarity, is_pair = caption_similarity(towers, gallery, language)
        to_text, to_image = ranks(similarity, is_pair), ranks(similarity.T, is_pair.T)
        rows.append(
            {
                "language": language,
                "R@1 image to text": recall(to_text, 1),
                "R@1 text to image": recall(to_image, 1),
                "R@5 image to text": recall(to_text, 5),
            }
        )
    return rows


def recall(found: torch.Tensor, k: int) -> dict[str, float]:
    """Share of queries whose rank is `k` or better."""
    counts = np.stack([found.numpy() <= k, np.ones(len(found), bool)], axis=1).astype(np.int64)
    return interval(bootstrap(counts, share_right))


def region_table(folder: Path, bank: SceneBank) -> list[Row]:
    """Noun of every thing from its true mask."""
    found = region_nouns_by_scene(load_siglip(folder / "siglip2"), bank)
    return [
        {
            "language": language,
            "regions": int(counts[:, 0].sum()),
            "noun top-1": interval(bootstrap(counts, region_accuracy)),
            "same answer in both languages": interval(bootstrap(counts[:, [0, 2]], region_accuracy)),
        }
        for language, counts in found.items()
    ]


def probe_table(folder: Path, bank: SceneBank) -> list[Row]:
    """Patch probes of the DINOv2 checkpoint beside those of random weights."""
    train = bank_of(draw_scene(seed) for seed in seeds_of("train")[-min(PROBE_SCENES, len(bank)) :])
    with TemporaryDirectory() as place:
        save_half(miniature_dinov2(seed=0), Path(place))
        untrained = load_dino(Path(place))
    rows = []
    for name, dino in (("checkpoint", load_dino(folder / "dinov2")), ("random weights", untrained)):
        train_set, test_set = (
            patch_set(dino_tokens(dino, scenes), scenes, patch_size=dino.patch_size)
            for scenes in (train, bank)
        )
        counts = probe_counts(train_set, test_set)
        rows.append(
            {"weights": name} | {figure: interval(bootstrap(c, share_right)) for figure, c in counts.items()}
        )
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
    sys.exit(main())
