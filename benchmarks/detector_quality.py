"""What the miniature LLMDet finds on held-out scenes: every figure of its model card.

All nouns are asked for at once, in English and in Chinese. A figure stands with its 95 % interval: bootstrap over
scenes, 200 resamples. Class-agnostic figures ask for places alone. Sizes are COCO's: small is a box of under 32 x 32
pixels; the world's boxes reach some 70 pixels, so that none is large. All of it is about the drawn world and says
nothing about photographs.

`--against FOLDER` judges a retraining: it measures the checkpoint in FOLDER, too, and exits with 1 where a figure of it
lies outside the interval of the first one. An interval is about other scenes, not about other seeds of the training.

python -m benchmarks.detector_quality [--checkpoint FOLDER] [--against FOLDER] [--split test] [--scenes 300]
    [--json FILE]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.miniature_quality import Row, compare, interval, markdown
from ovsops.metrics.detection import DetectionCounts, figure_intervals
from ovsops.metrics.objects import found_objects
from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.training.detector_quality import (
    KINDS,
    detect_nouns,
    load_detector,
    true_nouns,
)
from ovsops.training.scenes import SceneBank, bank_of

SHIPPED = "miniature:llmdet"


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default=SHIPPED, help="a folder; the shipped one by default")
    parser.add_argument("--against", help="another folder, judged by the first one")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    split: Split = arguments.split
    bank = bank_of(draw_scene(seed) for seed in seeds_of(split)[: arguments.scenes])
    found = {}
    for source in dict.fromkeys((arguments.checkpoint, arguments.against or arguments.checkpoint)):
        found[source] = detector_table(source, bank)
        print(f"\n{source}: {len(bank)} scenes of the {split} split\n\n{markdown(found[source])}", flush=True)
    if arguments.json:
        told = found[arguments.checkpoint] if arguments.against is None else found
        arguments.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if arguments.against is None:
        return 0
    outside = list(compare("detector", found[arguments.checkpoint], found[arguments.against]))
    print(f"\n{arguments.against}: {len(outside)} figures outside the interval of {arguments.checkpoint}\n")
    if outside:
        print(markdown(outside))
    return 1 if outside else 0


def detector_table(source: str, bank: SceneBank) -> list[Row]:
    """A row for each language and for names counted or not."""
    detector, true = load_detector(source), true_nouns(bank)
    rows = []
    for language in LANGUAGES:
        found = [found_objects(each) for each in detect_nouns(detector, bank, language)]
        for kind, config in KINDS.items():
            figures = figure_intervals(DetectionCounts.of_images(found, true, config=config))
            rows.append(
                {"boxes": f"{kind}, {language}"}
                | {name: interval(figure) for name, figure in figures.items() if figure.num_defined}
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
