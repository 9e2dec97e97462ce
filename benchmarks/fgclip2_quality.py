"""What the miniature FG-CLIP 2 knows of regions and scenes, before and after stage 2: every figure of its model card.

Held-out scenes, regions from their true boxes, phrases that say every attribute. A row of hard negatives is the true
phrase and ten that are wrong in one attribute; a tie is wrong. A figure stands with its 95 % interval: bootstrap over
scenes, 1000 resamples; for retrieval over queries, whose gallery stays. All of it is about the drawn world and says
nothing about photographs.

`--before FOLDER` is what stage 1 exported; without it the shipped SigLIP 2 stands there, as FG-CLIP 2 starts from it.
`--against FOLDER` judges a retraining: it exits with 1 where a figure of FOLDER lies outside the interval of the first
one.

python -m benchmarks.fgclip2_quality [--checkpoint FOLDER] [--before FOLDER] [--against FOLDER] [--split test]
    [--scenes 300] [--skip 0] [--json FILE]
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.miniature_quality import NUM_CANDIDATES, Row, compare, interval, markdown, recall
from ovsops.backbones.checkpoint import Checkpoint, resolve
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.metrics.bootstrap import bootstrap, paired_bootstrap
from ovsops.miniature.attributes import LANGUAGES
from ovsops.miniature.scene import draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.training.fgclip2_module import FgClip2Embedder
from ovsops.training.fgclip2_quality import (
    ATTRIBUTES,
    RegionSet,
    blind_is_right,
    caption_ranks,
    encode_scenes,
    hard_negatives,
    load_fgclip2,
    noun_answers,
    one_attribute,
    region_set,
    true_nouns,
)
from ovsops.training.fgclip2_stage1 import stage1_start
from ovsops.training.quality import share_right
from ovsops.training.scenes import LENGTHS, SceneBank, bank_of


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="an FG-CLIP 2; the shipped one by default")
    parser.add_argument("--before", type=Path, help="what stage 1 exported")
    parser.add_argument("--against", type=Path, help="another FG-CLIP 2, judged by the first one")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument(
        "--skip",
        type=int,
        default=0,
        help="scenes of the split before them: others than those that were looked at",
    )
    parser.add_argument("--json", type=Path, help="write all figures here, too")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    split: Split = arguments.split
    seeds = seeds_of(split)[arguments.skip : arguments.skip + arguments.scenes]
    bank = bank_of(draw_scene(seed) for seed in seeds)
    folder = arguments.checkpoint or miniature_checkpoint("fgclip2")
    with TemporaryDirectory() as place:
        before = arguments.before or write_start(Path(place))
        name = "the start from SigLIP 2" if arguments.before is None else "stage 1"
        found = {name: Measured(before, bank), "stage 2": Measured(folder, bank)}
    tables = tables_of(found)
    for title, rows in tables.items():
        print(f"\n{title}, {len(bank)} scenes of the {split} split: {folder}\n\n{markdown(rows)}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(tables, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if arguments.against is None:
        return 0
    own, other = (
        tables_of({"stage 2": measured}) for measured in (found["stage 2"], Measured(arguments.against, bank))
    )
    outside = [row for title in own for row in compare(title, own[title], other[title])]
    print(f"\n{arguments.against}: {len(outside)} figures outside the interval of {folder}\n")
    if outside:
        print(markdown(outside))
    return 1 if outside else 0


def write_start(folder: Path) -> Path:
    """The shipped SigLIP 2 as an FG-CLIP 2 that has learned nothing yet."""
    siglip2 = resolve(Checkpoint(source="miniature:siglip2"))
    model, words = stage1_start(siglip2, folder / "words", seed=0)
    FgClip2Embedder(model, words, device="cpu").export(folder / "start")
    return folder / "start"


class Measured:
    """A checkpoint's answers about a bank's scenes."""

    def __init__(self, folder: Path, bank: SceneBank) -> None:
        model = load_fgclip2(folder)
        images = encode_scenes(model, bank)
        self.regions: RegionSet = region_set(model, bank, images)
        captions = region_set(model, bank, images, outright=False)
        self.hard = {language: hard_negatives(model, self.regions, language) for language in LANGUAGES}
        self.hard_as_captions = {
            language: hard_negatives(model, captions, language) for language in LANGUAGES
        }
        self.attributes = {
            (language, attribute): one_attribute(model, self.regions, language, attribute)
            for language in LANGUAGES
            for attribute in ATTRIBUTES
        }
        self.nouns = {language: noun_answers(model, self.regions, language) for language in LANGUAGES}
        gallery, seen = first_scenes(bank, NUM_CANDIDATES), images[:NUM_CANDIDATES]
        self.ranks = {
            (language, length): caption_ranks(model, gallery, seen, language, length)
            for language in LANGUAGES
            for length in LENGTHS
        }


def first_scenes(bank: SceneBank, count: int) -> SceneBank:
    """The first scenes of a bank."""
    return SceneBank(
        bank.images[:count],
        bank.instances[:count],
        bank.semantic[:count],
        bank.codes[:count],
        bank.things[:count],
        {kind: captions[:count] for kind, captions in bank.captions.items()},
    )


def tables_of(found: Mapping[str, Measured]) -> dict[str, list[Row]]:
    """All tables; one row for each checkpoint and language."""
    pairs = [(name, measured, language) for name, measured in found.items() for language in LANGUAGES]
    return {
        "retrieval": [
            {
                "weights": f"{name}, {language}",
                **{
                    f"R@1 {length}, {direction}": recall(ranks, 1)
                    for length in LENGTHS
                    for direction, ranks in measured.ranks[language, length].items()
                },
            }
            for name, measured, language in pairs
        ],
        "hard negatives": [
            *(
                {
                    "weights": f"{name}, {language}",
                    "11-way": share(measured.regions, measured.hard[language]),
                    "as captions say it": share(measured.regions, measured.hard_as_captions[language]),
                }
                for name, measured, language in pairs
            ),
            *gains(found),
            *blind_rows(found),
        ],
        "one attribute against all its other values": [
            {
                "weights": f"{name}, {language}",
                **{
                    attribute: share(measured.regions, measured.attributes[language, attribute])
                    for attribute in ATTRIBUTES
                },
            }
            for name, measured, language in pairs
        ],
        "nouns": [
            {
                "weights": f"{name}, {language}",
                "regions": len(measured.regions.things),
                "noun top-1 of 12": share(
                    measured.regions, measured.nouns[language] == true_nouns(measured.regions)
                ),
                "same noun in both languages": share(
                    measured.regions,
                    (measured.nouns["en"] == measured.nouns["zh"]) & (measured.nouns[language] >= 0),
                ),
            }
            for name, measured, language in pairs
        ],
    }


def share(regions: RegionSet, is_right: torch.Tensor) -> dict[str, float]:
    """Right regions among all, with the interval over scenes."""
    return interval(bootstrap(regions.by_scene(is_right), share_right))


def gains(found: Mapping[str, Measured]) -> list[Row]:
    """What the last checkpoint knows more than the first, on the same regions."""
    if len(found) < 2:
        return []
    (before, after), name = found.values(), list(found)[-1]
    return [
        {
            "weights": f"gain of {name}, {language}",
            "11-way": interval(
                paired_bootstrap(
                    after.regions.by_scene(after.hard[language]),
                    before.regions.by_scene(before.hard[language]),
                    share_right,
                )
            ),
        }
        for language in LANGUAGES
    ]


def blind_rows(found: Mapping[str, Measured]) -> list[Row]:
    """A model that sees the texts alone; chance is 0.091."""
    regions = next(iter(found.values())).regions
    return [
        {"weights": f"blind, {language}", "11-way": share(regions, blind_is_right(regions, language))}
        for language in LANGUAGES
    ]


if __name__ == "__main__":
    sys.exit(main())
