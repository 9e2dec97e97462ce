"""Every rule of the validator by name, and the collector of what breaks them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipelines.keys import escaped_name
from pipelines.training_sets.contract import Fault

RULES: Mapping[str, str] = {
    "empty": "A set holds images with their texts.",
    "file": "Every file can be read whole as its format says.",
    "file_hash": "Files are those of index.json: present, of that size and SHA-256, and no others beside them.",
    "too_large": "No item, member or row group is larger than the validator's caps.",
    "type": "Every field has the type that the format gives it.",
    "field": "Every required field is there.",
    "key_twice": "No object has a key twice: readers do not agree which value counts.",
    "finite": "Numbers are finite.",
    "box_length": "A box has four numbers, or five with the score.",
    "box_range": "Boxes lie in 0..1 (COCO: in the image).",
    "box_order": "x1 <= x2 and y1 <= y2 (COCO: no negative sides).",
    "box_area": "Boxes have an area: nothing can be pooled from others.",
    "box_best_first": "Regions with scores are sorted, best first: four of an image are read.",
    "score": "Scores lie in 0..1.",
    "text_empty": "Captions, expressions and negatives are not empty.",
    "text_case": "Captions, expressions and negatives are lower case.",
    "text_control": "Texts hold no control characters.",
    "text_length": "Texts are no longer than a caption can be.",
    "negatives_count": "A flagged region has exactly ten negatives.",
    "negatives_distinct": "The negatives of a region are all different, marks and spaces aside.",
    "negatives_positive": "The positive is not among its negatives.",
    "negatives_flag": "The flag is 1 with negatives and 0 without.",
    "negatives_columns": "Types, scores and sources of negatives are as many as the negatives.",
    "negatives_source": "Where it is said who wrote a negative, it is rule or llm.",
    "is_cn": "is_cn is there for Chinese items alone: its presence decides, not its value.",
    "language": "Chinese items hold Han characters, English ones none; negatives are of their positive's language.",
    "path": "Image paths are relative and stay in the set.",
    "path_link": "No image is a link that leads out of the set.",
    "image_missing": "Every image that is named is there.",
    "image_broken": "Every image has bytes that begin as JPEG, PNG or WebP (--images whole: and can be decoded).",
    "image_hash": "Images have the SHA-256 and size that are recorded of them.",
    "image_twice": "No image is in the set twice.",
    "two_splits": "No image and no group of look-alikes is in two splits.",
    "split": "Files of a split hold items of that split, and splits are known by their names.",
    "rle": "Masks can be read and have the size of their image.",
    "rle_box": "A mask lies in its box, within a pixel.",
    "id_twice": "Ids are unique (COCO: from 1).",
    "reference": "Annotations name images and categories that are there.",
    "sample": "Every image of an archive has a JSON sidecar and every sidecar an image.",
    "card": "The folder has a README.md with configs that name its files.",
}
NOTES: Mapping[str, str] = {
    "same_words": "A negative has the words of its positive in another order, which may be as true.",
}
"""What is told and breaks no rule."""
EXAMPLES_PER_RULE = 5


@dataclass(frozen=True, kw_only=True)
class Example:
    """Where a rule is broken."""

    file: str
    item: str
    field: str
    message: str


@dataclass(kw_only=True)
class Report:
    """What was looked at and what was found."""

    path: str = ""
    format: str = ""
    files: int = 0
    images: int = 0
    regions: int = 0
    regions_with_negatives: int = 0
    masks: int = 0
    licenses: Counter[str] = field(default_factory=Counter)
    """Images by licence, at most some thousand different ones."""
    splits: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    """Findings by rule."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    noted: Counter[str] = field(default_factory=Counter)
    """What was told beside the rules, by the names of `NOTES`; examples are among the others."""
    pictures: str = ""
    """How far pictures were looked at."""
    not_checked: list[str] = field(default_factory=list)
    """What this format or this call left unchecked."""

    def add(self, fault: Fault, *, file: str, item: str = "") -> None:
        """Count a broken rule or a note; the first of each are kept as examples. Hostile text is made harmless."""
        assert fault.rule in RULES or fault.rule in NOTES, fault.rule
        (self.broken if fault.rule in RULES else self.noted)[fault.rule] += 1
        some = self.examples.setdefault(fault.rule, [])
        if len(some) < EXAMPLES_PER_RULE:
            texts = (file, item, fault.field, fault.message)
            file, item, name, message = (_harmless(text) for text in texts)
            some.append(Example(file=file, item=item, field=name, message=message))

    def count_license(self, name: object) -> None:
        """One image's licence."""
        text = name if isinstance(name, str) and name.strip() else "(unknown)"
        text = text if text in self.licenses or len(self.licenses) < 2000 else "(others)"
        self.licenses[_harmless(text, 100)] += 1

    @property
    def is_valid(self) -> bool:
        """Nothing was found."""
        return not self.broken

    def to_plain(self) -> dict[str, Any]:
        """For JSON. Every rule is there, with its count."""
        return {
            "path": self.path,
            "format": self.format,
            "valid": self.is_valid,
            "files": self.files,
            "images": self.images,
            "regions": self.regions,
            "regions_with_negatives": self.regions_with_negatives,
            "masks": self.masks,
            "splits": dict(self.splits),
            "languages": dict(self.languages),
            "licenses": dict(self.licenses.most_common()),
            "rules": {
                rule: {"says": says, "broken": self.broken[rule]} | self._shown(rule)
                for rule, says in RULES.items()
            },
            "notes": {
                name: {"says": NOTES[name], "count": count} | self._shown(name)
                for name, count in self.noted.items()
            },
            "pictures": self.pictures,
            "not_checked": self.not_checked,
        }

    def _shown(self, name: str) -> dict[str, Any]:
        return {"examples": [vars(e) for e in self.examples[name]]} if name in self.examples else {}


def plain_reports(path: Path, reports: Sequence[Report]) -> dict[str, Any]:
    """For JSON: the report of one set as it is; of several, the verdict over all and each one's report."""
    if len(reports) == 1:
        return reports[0].to_plain()
    valid = all(report.is_valid for report in reports)
    return {"path": str(path), "valid": valid, "sets": [report.to_plain() for report in reports]}


def _harmless(text: str, max_chars: int = 300) -> str:
    return escaped_name(text.encode("utf-8", "surrogatepass"), max_chars)
