"""Which words stand for which class, and which classes are rivals. Axes: C classes, in vocabulary order."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ovsops.annotators.config import LlmDetConfig
from ovsops.errors import VocabularyError
from ovsops.regions.exclusive import NO_GROUP
from ovsops.regions.recalibrate import competing_groups
from ovsops.text.label_names import LabelNames
from ovsops.text.names import canonical_name
from ovsops.text.vocabulary import ClassSpec, Vocabulary


@dataclass(frozen=True, kw_only=True)
class ClassPrompt:
    """Words for a class."""

    label: int
    """Place of the class in the vocabulary, from 0."""
    prompt: str
    language: str


@dataclass(frozen=True)
class DetectorNames:
    """Every prompt that a detector is asked for: a name's place says class and words."""

    prompts: tuple[ClassPrompt, ...]

    @cached_property
    def names(self) -> LabelNames:
        """What the detector takes."""
        return LabelNames(tuple(entry.prompt for entry in self.prompts))

    @cached_property
    def labels(self) -> Int64[Tensor, " N"]:
        """The class of each name."""
        return torch.tensor([entry.label for entry in self.prompts], dtype=torch.int64)


def detector_names(vocabulary: Vocabulary, languages: Sequence[str]) -> DetectorNames:
    """The prompts of all things, in the languages asked for: stuff has no boxes.

    Raises `VocabularyError` for a thing without a prompt in these languages, and where there is no thing at all.
    """
    prompts = []
    for label, spec in enumerate(vocabulary.classes):
        if spec.kind != "thing":
            continue
        own = _prompts(vocabulary, spec, languages)
        if not own:
            raise VocabularyError(
                f"vocabulary {vocabulary.name}: the detector is asked in {', '.join(languages)}, and class {spec.id} "
                f"{spec.name!r} has no prompt there; add one, or set detector.languages"
            )
        prompts += [ClassPrompt(label=label, prompt=words, language=language) for words, language in own]
    if not prompts:
        raise VocabularyError(
            f"vocabulary {vocabulary.name}: a detector looks for things, and every class is stuff"
        )
    return DetectorNames(tuple(prompts))


def group_names(vocabulary: Vocabulary) -> DetectorNames:
    """The groups of all things, asked for by name; what is found is labelled with the first class of the group.

    Raises `VocabularyError` for a thing without a group.
    """
    prompts: dict[str, ClassPrompt] = {}
    for label, spec in enumerate(vocabulary.classes):
        if spec.kind == "thing" and not spec.group:
            raise VocabularyError(
                f"vocabulary {vocabulary.name}: detector.ask is groups, and class {spec.id} {spec.name!r} has no"
                " group; give it one, or ask for classes"
            )
        if spec.kind == "thing":
            entry = ClassPrompt(label=label, prompt=spec.group, language=vocabulary.name_language)
            prompts.setdefault(spec.group, entry)
    if not prompts:
        raise VocabularyError(
            f"vocabulary {vocabulary.name}: a detector looks for things, and every class is stuff"
        )
    return DetectorNames(tuple(prompts.values()))


def first_prompts(vocabulary: Vocabulary, languages: Sequence[str]) -> tuple[ClassPrompt, ...]:
    """The words by which each class is called where nothing else was said: its first prompt in the first language
    that prompts it, else its name.
    """
    return tuple(
        ClassPrompt(label=label, prompt=words, language=language)
        for label, spec in enumerate(vocabulary.classes)
        for words, language in [
            next(iter(_prompts(vocabulary, spec, languages)), (spec.name, vocabulary.name_language))
        ]
    )


def competing_classes(vocabulary: Vocabulary, by: Literal["group", "parent", "name"]) -> Int64[Tensor, " C"]:
    """One number for all classes that compete: of one group, one parent, or one noun at the end of the name.

    A class without a group (parent) competes with nobody.
    """
    keys = []
    for spec in vocabulary.classes:
        shared = {"group": spec.group, "parent": spec.parent, "name": canonical_name(spec.name).split()[-1]}[
            by
        ]
        keys.append(f"{by} {shared}" if shared else f"class {spec.id}")
    return competing_groups(keys)


def rival_classes(vocabulary: Vocabulary) -> Bool[Tensor, "C C"]:
    """Which names stand against which: all but a class itself, what it is a kind of, and what is a kind of it."""
    by_name = {spec.name: place for place, spec in enumerate(vocabulary.classes)}
    related = torch.eye(len(vocabulary.classes), dtype=torch.bool)
    for place, spec in enumerate(vocabulary.classes):
        parent = spec.parent
        while parent is not None:
            related[place, by_name[parent]] = related[by_name[parent], place] = True
            parent = vocabulary.classes[by_name[parent]].parent
    return ~related


def group_rivals(vocabulary: Vocabulary, *, at_most: int = 8) -> tuple[tuple[int, ...], ...]:
    """Places of the other classes of each class's group, which it may be mistaken for; the first ones."""
    groups = competing_classes(vocabulary, "group").tolist()
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    return tuple(
        tuple(other for other in members[group] if other != place)[:at_most]
        for place, group in enumerate(groups)
    )


def exclusive_groups(vocabulary: Vocabulary) -> tuple[Int64[Tensor, " C"], ...]:
    """For each exclusive group of the vocabulary: 0 for its classes, `NO_GROUP` for others."""
    return tuple(
        torch.tensor(
            [0 if spec.name in names else NO_GROUP for spec in vocabulary.classes], dtype=torch.int64
        )
        for names in vocabulary.exclusive
    )


def _prompts(vocabulary: Vocabulary, spec: ClassSpec, languages: Sequence[str]) -> list[tuple[str, str]]:
    return [
        (words, language)
        for language in languages
        if language in vocabulary.languages
        for words in vocabulary.prompts_of(spec, language)
    ]


def asked_names(config: LlmDetConfig, vocabulary: Vocabulary) -> DetectorNames:
    """What the detector is asked for."""
    if config.ask == "groups":
        return group_names(vocabulary)
    return detector_names(vocabulary, config.languages)
