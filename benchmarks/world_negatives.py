"""Negatives of the miniature world's region phrases, checked against its record: which of them are true after all?

python -m benchmarks.world_negatives OUT.jsonl [--level hard] [--language en] [--scenes 500] [--seed 0] [--made N]

Draws held-out scenes (test seeds), makes ten negatives for every thing's phrase, and counts those that the thing's
record makes true: any of its attributes may be left unsaid, so a phrase is true if it is one of the phrases of a
subset. Writes what `python -m benchmarks.blind_negatives OUT.jsonl` reads; the scene is the group. `--made N` takes
N captions made from the lexicon's usual words instead (`benchmarks.negatives`), which have no record.
"""

import argparse
import itertools
import json
from collections import Counter
from pathlib import Path

from benchmarks.negatives import made_captions
from ovsops.miniature.attributes import Language
from ovsops.miniature.captions import ATTRIBUTES, region_phrase
from ovsops.miniature.scene import Thing, draw_scene
from ovsops.miniature.splits import seeds_of
from ovsops.negatives.config import LEVELS, NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.lexicon import LANGUAGES
from ovsops.negatives.sampler import Refusal, fit_sampler


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--level", choices=LEVELS, default="hard")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--scenes", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--made", type=int, default=0)
    options = parser.parse_args()
    rows = (
        made_rows(options.language, options.made)
        if options.made
        else world_rows(options.language, options.scenes)
    )
    sample = CorpusSample()
    for i, (text, _, _) in enumerate(rows):
        sample.add(text, options.language, str(i))
    sampler = fit_sampler(sample, NegativeConfig(level=options.level, seed=options.seed))
    counts: Counter[str] = Counter()
    with options.out.open("w", encoding="utf-8") as file:
        for i, (text, group, truths) in enumerate(rows):
            answer = sampler.negatives_for(text, options.language, key=str(i))
            counts["phrases"] += 1
            if isinstance(answer, Refusal):
                counts[answer.reason] += 1
                continue
            counts["negatives"] += len(answer.negatives)
            counts["true"] += len(truths.intersection(answer.negatives))
            row = {"text": text, "group": group, "negatives": answer.negatives, "types": answer.types}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    print(
        f"{options.out}: {dict(counts)}; true by the record: {counts['true'] / max(1, counts['negatives']):.4%}"
    )


def world_rows(language: Language, num_scenes: int) -> list[tuple[str, str, set[str]]]:
    """Phrase, group and true phrases of every thing of held-out scenes."""
    return [
        (region_phrase(thing, language), f"scene {seed}", true_phrases(thing, language))
        for seed in seeds_of("test")[:num_scenes]
        for thing in draw_scene(seed).things
    ]


def made_rows(language: Language, count: int) -> list[tuple[str, str, set[str]]]:
    return [(text, text, set()) for text in made_captions(language, count, seed=5)]


def true_phrases(thing: Thing, language: Language) -> set[str]:
    """All that may be said of a thing: any of its attributes."""
    return {
        region_phrase(thing, language, chosen)
        for count in range(len(ATTRIBUTES) + 1)
        for chosen in itertools.combinations(ATTRIBUTES, count)
    }


if __name__ == "__main__":
    main()
