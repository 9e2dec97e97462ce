"""What changed in negatives, read from the texts alone: knows nothing of the generator or its lexicon.

python -m benchmarks.check_negatives FILE.jsonl[.gz] --level hard|medium|easy

Words are compared place by place after "light X" and "dark X" became one word, and names of two words did.
A changed place is a slot; its type is that of the lists below, and a word of no list is the name of a
thing. "glass" names a thing, too, where an article and describing words come before it and no noun after it ("a
transparent glass with a rim"). Prints the share of negatives that change as many slots as the
level says, each by a word of the same type, and what else is wrong. English only: rows with Chinese
characters are passed over. FG-OVD's files are read, too.
"""

import argparse
import re
from collections import Counter
from pathlib import Path

from benchmarks.blind_negatives import read_rows
from ovsops.negatives.check import set_faults

NUM_SLOTS = {"hard": 1, "medium": 2, "easy": 3}
COLOURS = (
    *"black white blue brown green grey gray orange pink purple red yellow".split(),
    *"beige gold silver navy tan cream".split(),
)
SHADED = {f"{shade} {colour}" for shade in ("light", "dark") for colour in COLOURS}
TYPES = {
    "colour": {*COLOURS, *SHADED},
    "material": set(
        "stone wood wooden rattan fabric crochet wool leather velvet metal metallic paper plastic glass ceramic"
        " rubber steel iron aluminium brass bamboo wicker".split()
    ),
    "pattern": set("plain striped dotted checkered woven studded perforated floral logo spotted".split()),
    "transparency": set("opaque translucent transparent".split()),
    "size": set("small big large tiny huge long short tall wide narrow thick thin little".split()),
    "finish": set("shiny rough smooth matte".split()),
    "count": set("two three four five six seven eight nine ten".split()),
}
TWO_WORDS = (
    "trash can|soap dispenser|remote control|television set|laptop computer|cellular telephone|cellular phone"
    "|cell phone|computer mouse|table top|microwave oven|drink container|plastic bag|tissue paper|wine glass"
)
AFTER_NOUN = frozenset(("", "with", "made", "on", "that", "which", "is", "in"))
"""What follows the last word of a noun phrase."""
_MERGED = re.compile(rf"\b(?:(light|dark)[ -]({'|'.join(COLOURS)})|({TWO_WORDS}))\b")
_WORD = re.compile(r"[a-z0-9'_-]+")
_RELATION = re.compile(r"\b(on the|in front of|left of|right of|on top of)\b")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--level", choices=tuple(NUM_SLOTS), required=True)
    parser.add_argument("--show", type=int, default=8)
    options = parser.parse_args()
    texts, _ = read_rows(options.file)
    counts: Counter[str] = Counter()
    types: Counter[str] = Counter()
    shown: list[str] = []
    for row in texts:
        positive, negatives = row[0], row[1:]
        if re.search("[\u4e00-\u9fff]", positive):
            continue
        counts["rows"] += 1
        for fault, text in set_faults(positive, negatives):
            counts[fault] += 1
            shown.append(f"{fault}: {positive} -> {text}")
        for negative in negatives:
            counts["negatives"] += 1
            slots = changed_slots(positive, negative)
            good = (
                slots is not None and len(slots) == NUM_SLOTS[options.level] and all(a == b for a, b in slots)
            )
            counts["as the level says"] += good
            types.update(a for a, _ in slots or ())
            if not good:
                shown.append(f"{slots}: {positive} -> {negative}")
    share = counts["as the level says"] / max(1, counts["negatives"])
    print(f"{options.file}: {dict(counts)}")
    print(f"slots and types as the level says: {share:.4%}; changed: {dict(types.most_common())}")
    for line in shown[: options.show]:
        print("  ", line)


def changed_slots(positive: str, negative: str) -> list[tuple[str, str]] | None:
    """Types before and after of every changed place; None where the numbers of words differ."""
    old, new = merged_words(positive), merged_words(negative)
    if len(old) != len(new):
        return None
    return [
        (type_at(old, place), type_at(new, place))
        for place, (a, b) in enumerate(zip(old, new, strict=True))
        if a != b
    ]


def merged_words(text: str) -> list[str]:
    text = _MERGED.sub(lambda m: m.group().replace(" ", "_").replace("-", "_"), text.lower())
    text = _RELATION.sub(lambda m: m.group().replace(" ", "_"), text)
    words = _WORD.findall(text)
    return ["a" if word == "an" else word for word in words]


def type_at(words: list[str], place: int) -> str:
    """Type of a word where it stands: the vessel "glass" is a thing, after "of" it is stuff."""
    if words[place] == "glass":
        after = words[place + 1] if place + 1 < len(words) else ""
        before = next((word for word in reversed(words[:place]) if type_of(word) == "object"), "")
        if after in AFTER_NOUN and before in ("", "a"):
            return "object"
    return type_of(words[place])


def type_of(word: str) -> str:
    plain = word.replace("_", " ")
    return next((name for name, words in TYPES.items() if plain in words), "object")


if __name__ == "__main__":
    main()
