"""Vocabulary x templates to the sentences that a text encoder reads.

Sentences are written as given: lower-casing, where a text tower wants it, is its tokenizer's business.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from ovsops.errors import VocabularyError
from ovsops.text.names import nearest
from ovsops.text.templates import fill_template
from ovsops.text.vocabulary import Vocabulary

Role = Literal["class", "negative", "background"]

MAX_SENTENCE_CHARS = 256
"""Text towers read 64 to 77 tokens; a longer sentence would be cut without a word."""


@dataclass(frozen=True, kw_only=True)
class PromptEntry:
    """One prompt of one class in one language, in all its templates."""

    role: Role
    class_index: int
    """Place of the class in the vocabulary, from 0; -1 for background."""
    class_id: int
    """Category id; 0 for background."""
    language: str
    prompt: str
    sentences: tuple[int, ...]
    """Indexes into `PromptTable.sentences`, one a template."""


@dataclass(frozen=True, kw_only=True)
class PromptTable:
    """Every sentence once, and which prompt of which class it belongs to."""

    languages: tuple[str, ...]
    num_classes: int
    sentences: tuple[str, ...]
    """Filled-in templates without repetition, in the order of first use."""
    entries: tuple[PromptEntry, ...]
    """Class prompts in vocabulary order, then negative prompts, then background prompts."""

    def of_role(self, role: Role) -> tuple[PromptEntry, ...]:
        """The entries of one role, in order."""
        return tuple(entry for entry in self.entries if entry.role == role)

    @cached_property
    def of_class(self) -> tuple[tuple[PromptEntry, ...], ...]:
        """The class prompts of each class, by its place in the vocabulary."""
        by_class: list[list[PromptEntry]] = [[] for _ in range(self.num_classes)]
        for entry in self.of_role("class"):
            by_class[entry.class_index].append(entry)
        return tuple(tuple(entries) for entries in by_class)

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, the same for equal tables: what a cache key is taken of."""
        return {
            "languages": list(self.languages),
            "num_classes": self.num_classes,
            "sentences": list(self.sentences),
            "entries": [asdict(entry) | {"sentences": list(entry.sentences)} for entry in self.entries],
        }


def class_prompts(vocabulary: Vocabulary, languages: Sequence[str] | None = None) -> PromptTable:
    """Every sentence for classes, negative prompts and background, in the languages asked for.

    `languages` None means all of the vocabulary's. Raises `VocabularyError` for a language that the
    vocabulary does not have, a class without a prompt in any of the languages, two classes with equal prompts, and a
    sentence of more than 256 characters.
    """
    chosen = _check_languages(vocabulary, languages)
    _check_every_class_is_prompted(vocabulary, chosen)
    _check_classes_differ(vocabulary, chosen)
    index: dict[str, int] = {}
    entries = []
    for role, class_index, class_id, language, prompt in _prompts(vocabulary, chosen):
        sentences = [fill_template(template, prompt) for template in vocabulary.templates_of(language)]
        for sentence in sentences:
            if len(sentence) > MAX_SENTENCE_CHARS:
                raise VocabularyError(
                    f"vocabulary {vocabulary.name}: {role} prompt {prompt[:40]!r}... of class id {class_id}"
                    f" makes a sentence of {len(sentence)} characters, at most {MAX_SENTENCE_CHARS}; shorten it"
                )
        entries.append(
            PromptEntry(
                role=role,
                class_index=class_index,
                class_id=class_id,
                language=language,
                prompt=prompt,
                sentences=tuple(index.setdefault(sentence, len(index)) for sentence in sentences),
            )
        )
    return PromptTable(
        languages=chosen, num_classes=len(vocabulary.classes), sentences=tuple(index), entries=tuple(entries)
    )


def _prompts(vocabulary: Vocabulary, languages: Sequence[str]) -> Iterator[tuple[Role, int, int, str, str]]:
    for class_index, spec in enumerate(vocabulary.classes):
        for language in languages:
            for prompt in vocabulary.prompts_of(spec, language):
                yield "class", class_index, spec.id, language, prompt
    for class_index, spec in enumerate(vocabulary.classes):
        for language, prompt in _in_languages(spec.negative_prompts, languages):
            yield "negative", class_index, spec.id, language, prompt
    for language, prompt in _in_languages(vocabulary.background, languages):
        yield "background", -1, 0, language, prompt


def _in_languages(
    prompts: Mapping[str, Sequence[str]], languages: Sequence[str]
) -> Iterator[tuple[str, str]]:
    for language in languages:
        for prompt in prompts.get(language, ()):
            yield language, prompt


def _check_languages(vocabulary: Vocabulary, languages: Sequence[str] | None) -> tuple[str, ...]:
    chosen = vocabulary.languages if languages is None else tuple(languages)
    for language in chosen:
        if language not in vocabulary.languages:
            raise VocabularyError(
                f"vocabulary {vocabulary.name} has no language"
                f" {language!r}{nearest(language, vocabulary.languages)};"
                f" it has {', '.join(vocabulary.languages)}"
            )
    if not chosen or len(set(chosen)) < len(chosen):
        raise VocabularyError(
            f"vocabulary {vocabulary.name}: languages {list(chosen)} must name at least one, and none twice"
        )
    return chosen


def _check_every_class_is_prompted(vocabulary: Vocabulary, languages: Sequence[str]) -> None:
    silent = [
        spec
        for spec in vocabulary.classes
        if not any(vocabulary.prompts_of(spec, each) for each in languages)
    ]
    if silent:
        first = silent[0]
        has = [each for each in vocabulary.languages if vocabulary.prompts_of(first, each)]
        others = f" (and {len(silent) - 1} more classes)" if len(silent) > 1 else ""
        raise VocabularyError(
            f"vocabulary {vocabulary.name}: class {first.id} {first.name!r}{others} has no prompt in"
            f" {', '.join(languages)}; add one, or ask for {', '.join(has)} too"
        )


def _check_classes_differ(vocabulary: Vocabulary, languages: Sequence[str]) -> None:
    """Classes with equal prompts have equal vectors: the first would win every pixel of both."""
    seen: dict[frozenset[tuple[str, str]], int] = {}
    by_id = vocabulary.by_id
    for spec in vocabulary.classes:
        prompts = frozenset(
            (each, prompt) for each in languages for prompt in vocabulary.prompts_of(spec, each)
        )
        other = seen.setdefault(prompts, spec.id)
        if other != spec.id:
            raise VocabularyError(
                f"vocabulary {vocabulary.name}: classes {other} {by_id[other].name!r} and {spec.id}"
                f" {spec.name!r} have the same prompts in {', '.join(languages)},"
                " so only the first could ever be found; give one of them other prompts"
            )
