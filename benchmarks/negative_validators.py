"""Do validators find negatives that are true? Held-out scenes of the miniature world, poisoned on purpose.

python -m benchmarks.negative_validators [--scenes 300] [--tune 300] [--language en] [--json FILE]
python -m benchmarks.negative_validators --file OUT.jsonl   # what texts drop of `ovsops negate`'s output, how fast

Every region has a caption that says some of its attributes, and ten negatives by rule. One negative in ten is replaced
by a true statement:

    reworded  the caption in other words ("large" for "big"), where the lexicon has some
    less      the caption without one of its attributes
    unsaid    an attribute that the caption leaves out, in place of one that it says
    truth     the caption is wrong in one value (as captioners are: one in four here), and the negative has the right
              one; those that the generator found by itself count, too

Recall is the share of the poison that is dropped, a false alarm a false negative that is dropped, by the world's
record. Margins are fitted on the right captions of validation scenes, by type, at 5 % false alarms. "texts" is
`TextValidator`, alone and with the region's whole caption as its context. 95 % intervals, bootstrap over scenes.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.world_negatives import true_phrases
from ovsops.backbones.checkpoint import Checkpoint
from ovsops.miniature.attributes import COLOURS, MATERIALS, PATTERNS, SIZES
from ovsops.miniature.captions import ATTRIBUTES, region_phrase
from ovsops.miniature.scene import Thing, draw_scene
from ovsops.miniature.splits import Split, seeds_of
from ovsops.negatives.candidates import (
    CandidateNegatives,
    RegionContext,
    Source,
    Validator,
    count_drops,
    validate_all,
)
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.lexicon import LANGUAGES, Language
from ovsops.negatives.margin_check import MarginConfig, MarginSample, MarginValidator, fit_margins, margins_of
from ovsops.negatives.sampler import Negatives, fit_sampler
from ovsops.negatives.validators import TextValidator
from ovsops.regions.region_vectors import RegionVectors

KINDS = ("reworded", "less", "unsaid", "truth")
REWORDED = {"en": {"big ": "large ", "small ": "little "}, "zh": {"大": "巨大", "小": "很小"}}
LEXICON_TYPES = {"size": "size", "colour": "colour", "pattern": "pattern", "material": "finish"}
VALUES = {"size": SIZES, "colour": COLOURS, "pattern": PATTERNS, "material": MATERIALS}


@dataclass(frozen=True, kw_only=True)
class Poisoned:
    """A region with its candidates and what is known of each."""

    scene: int
    candidates: CandidateNegatives
    context: RegionContext
    long: str
    """The whole caption."""
    poison: tuple[str, ...]
    """Kind of each candidate; empty for a negative of the generator."""
    is_true: tuple[bool, ...]
    is_caption_wrong: bool


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=300)
    parser.add_argument("--tune", type=int, default=300)
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--file", type=Path, help="output of `ovsops negate`: only texts, without contexts")
    options = parser.parse_args(words)
    if options.file:
        print(drops_of_file(options.file, options.language))
        return
    vectors = RegionVectors.load(Checkpoint(source="miniature:fgclip2"))
    tuning = poisoned_regions("validation", options.tune, options.language, vectors)
    regions = poisoned_regions("test", options.scenes, options.language, vectors)
    config = fitted_config(tuning, vectors)
    print(f"margins by type: { {kind: round(value, 4) for kind, value in config.margins.items()} }")
    ways: dict[str, tuple[list[Validator], bool]] = {
        "texts": ([TextValidator()], False),
        "texts, whole caption": ([TextValidator()], True),
        "margin 0": ([MarginValidator(vectors.texts)], False),
        "fitted margins": ([MarginValidator(vectors.texts, config)], False),
        "texts and margin 0": ([TextValidator(), MarginValidator(vectors.texts)], False),
        "texts and fitted margins": ([TextValidator(), MarginValidator(vectors.texts, config)], False),
        "texts, whole caption, margin 0": ([TextValidator(), MarginValidator(vectors.texts)], True),
    }
    rows = [measured(name, *way, regions) for name, way in ways.items()]
    num = sum(len(each.poison) for each in regions)
    bad = sum(sum(each.is_true) for each in regions)
    print(f"{len(regions)} regions, {num} negatives, {bad} true before ({bad / num:.2%})\n")
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(str(row[column]) for column in columns) + " |")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def drops_of_file(path: Path, language: Language) -> str:
    """Drops by reason, and regions per CPU-second."""
    candidates = []
    source: Source = "rule"
    for number, line in enumerate(path.read_text("utf-8").splitlines()):
        row = json.loads(line)
        if row["negatives"] is None:
            continue
        candidates.append(
            CandidateNegatives(
                key=str(number),
                positive=row.get("positive", row["text"]),
                language=language,
                texts=tuple(row["negatives"]),
                types=tuple(row["types"]),
                sources=(source,) * len(row["negatives"]),
            )
        )
    started = time.process_time()
    drops = count_drops(validate_all([TextValidator()], candidates, [RegionContext()] * len(candidates)))
    speed = len(candidates) / (time.process_time() - started)
    total = sum(len(each.texts) for each in candidates)
    return f"{len(candidates)} captions, {total} negatives; dropped {dict(drops)}; {speed:.0f} captions/CPU-second"


def poisoned_regions(
    split: Split, num_scenes: int, language: Language, vectors: RegionVectors
) -> list[Poisoned]:
    """Regions of the first scenes of a split; the same for the same arguments."""
    generator = np.random.default_rng(7)
    things: list[tuple[int, Thing, np.ndarray]] = []
    for number, seed in enumerate(seeds_of(split)[:num_scenes]):
        scene = draw_scene(seed)
        boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in (t.box_xywh for t in scene.things)])
        seen = vectors.of_image(scene.image, boxes.astype(np.float32))
        things += [
            (number, thing, feature) for thing, feature in zip(scene.things, seen.regions, strict=True)
        ]
    captions = [captioned(thing, language, generator) for _, thing, _ in things]
    sample = CorpusSample()
    for i, (caption, _, _) in enumerate(captions):
        sample.add(caption, language, str(i))
    sampler = fit_sampler(sample)
    found = []
    for i, ((scene_number, thing, feature), (caption, said, wrong)) in enumerate(
        zip(things, captions, strict=True)
    ):
        made = sampler.negatives_for(caption, language, key=str(i))
        if not isinstance(made, Negatives):
            continue
        texts, types, kinds = list(made.negatives), list(made.types), [""] * 10
        for place in np.flatnonzero(generator.random(10) < 0.1).tolist():
            poison = poison_of(caption, thing, said, wrong, language, generator)
            if poison is not None and poison[1] not in texts:
                kinds[place], texts[place], types[place] = poison
        truths = true_phrases(thing, language)
        kinds = [kind or ("truth" if text in truths else "") for kind, text in zip(kinds, texts, strict=True)]
        found.append(
            Poisoned(
                scene=scene_number,
                candidates=CandidateNegatives(
                    key=str(i),
                    positive=made.positive,
                    language=language,
                    texts=tuple(texts),
                    types=tuple(types),
                    sources=("rule",) * 10,
                ),
                context=RegionContext(feature=feature),
                long=region_phrase(thing, language),
                poison=tuple(kinds),
                is_true=tuple(bool(kind) for kind in kinds),
                is_caption_wrong=bool(wrong),
            )
        )
    return found


def captioned(thing: Thing, language: Language, generator: np.random.Generator) -> tuple[str, list[str], str]:
    """A caption, the attributes that it says, and the one that is wrong in it; one caption in four is wrong."""
    count = int(generator.integers(1, 4))
    chosen = generator.choice(4, size=count, replace=False).tolist()
    said = [name for place, name in enumerate(ATTRIBUTES) if place in chosen]
    wrong = ""
    said_aloud = [name for name in said if spoken(thing, name, language)]
    if said_aloud and generator.random() < 0.25:
        wrong = str(generator.choice(said_aloud))
        thing = changed(thing, wrong, language, generator)
    return region_phrase(thing, language, said), said, wrong


def poison_of(
    caption: str,
    thing: Thing,
    said: list[str],
    wrong: str,
    language: Language,
    generator: np.random.Generator,
) -> tuple[str, str, str] | None:
    """Kind, text and type of a true statement; None where the drawn kind has none for this region."""
    if wrong:
        return "truth", region_phrase(thing, language, said), LEXICON_TYPES[wrong]
    kind = KINDS[int(generator.integers(3))]
    spoken_of = [name for name in said if spoken(thing, name, language)]
    if kind == "reworded":
        for word, other in REWORDED[language].items():
            if caption.startswith(word):
                return kind, other + caption.removeprefix(word), "size"
        return None
    if not spoken_of:
        return None
    dropped = str(generator.choice(spoken_of))
    left = [name for name in said if name != dropped]
    if kind == "less":
        return kind, region_phrase(thing, language, left), LEXICON_TYPES[dropped]
    unsaid = [name for name in ATTRIBUTES if name not in said and spoken(thing, name, language)]
    if not unsaid:
        return None
    added = str(generator.choice(unsaid))
    return kind, region_phrase(thing, language, [*left, added]), LEXICON_TYPES[added]


def spoken(thing: Thing, name: str, language: Language) -> bool:
    """Whether a value has a word: plain, matte and medium go without saying."""
    value = getattr(thing, name)
    return bool(next(word for word in VALUES[name] if word.name == value).in_language(language))


def changed(thing: Thing, name: str, language: Language, generator: np.random.Generator) -> Any:
    """The thing with another value that has a word."""
    values = [
        word.name for word in VALUES[name] if word.in_language(language) and word.name != getattr(thing, name)
    ]
    attributes = {each: getattr(thing, each) for each in (*ATTRIBUTES, "noun")}
    return Described(**attributes | {name: str(generator.choice(values))})


@dataclass(frozen=True, kw_only=True)
class Described:
    noun: str
    colour: str
    pattern: str
    material: str
    size: str


def fitted_config(tuning: list[Poisoned], vectors: RegionVectors) -> MarginConfig:
    """Margins by type at 5 % false alarms."""
    gaps = margins_of([each.candidates for each in tuning], [each.context for each in tuning], vectors.texts)
    samples = [
        MarginSample(kind=kind, gap=float(gap), is_true=is_true)
        for each, own in zip(tuning, gaps, strict=True)
        if own is not None and not each.is_caption_wrong
        for kind, gap, is_true in zip(each.candidates.types, own, each.is_true, strict=True)
    ]
    fitted = fit_margins(samples, max_false_alarms=0.05)
    return MarginConfig(margins={kind: found.margin for kind, found in fitted.items()})


def measured(
    name: str, validators: list[Validator], with_long: bool, regions: list[Poisoned]
) -> dict[str, Any]:
    """One row of the table."""
    contexts = [
        RegionContext(feature=each.context.feature, captions=(each.long,) if with_long else ())
        for each in regions
    ]
    found = validate_all(validators, [each.candidates for each in regions], contexts)
    kind = np.array([kind for each in regions for kind in each.poison])
    is_true = np.array([flag for each in regions for flag in each.is_true])
    is_dropped = np.array([reason is not None for each in found for reason in each.reasons])
    scene = np.array([each.scene for each in regions for _ in each.poison])
    row: dict[str, Any] = {"validators": name}
    row["true after"] = f"{(is_true & ~is_dropped).sum() / max(1, (~is_dropped).sum()):.2%}"
    row["recall"] = interval(is_dropped, is_true, scene)
    for each in KINDS:
        row[f"{each} ({(kind == each).sum()})"] = f"{is_dropped[kind == each].mean():.3f}"
    types = np.array([kind for each in regions for kind in each.candidates.types])
    is_colour = (kind == "truth") & (types == "colour")
    row[f"truth, colour ({is_colour.sum()})"] = f"{is_dropped[is_colour].mean():.3f}"
    row["false alarms"] = interval(is_dropped, ~is_true, scene)
    is_right = np.array([not each.is_caption_wrong for each in regions for _ in each.poison])
    row["false alarms, right captions"] = interval(is_dropped, ~is_true & is_right, scene)
    return row


def interval(is_dropped: np.ndarray, among: np.ndarray, scene: np.ndarray) -> str:
    """Share of those that are dropped, with its interval over scenes."""
    num_scenes = int(scene.max()) + 1
    hits = np.bincount(scene, is_dropped & among, num_scenes)
    totals = np.bincount(scene, among, num_scenes)
    generator = np.random.default_rng(0)
    draws = generator.integers(num_scenes, size=(1000, num_scenes))
    shares = hits[draws].sum(1) / totals[draws].sum(1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return f"{hits.sum() / totals.sum():.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
