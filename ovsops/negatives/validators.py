"""What texts alone tell of negatives: faults, synonyms, and what other captions and labels of the region say.

A negative is false where one of its words is: it is dropped for being true only where everything that it changed
may be true. Both validators are pure and need no model.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from ovsops.errors import VocabularyError
from ovsops.negatives.candidates import CandidateNegatives, DropReason, RegionContext
from ovsops.negatives.check import text_faults, words_of
from ovsops.negatives.claims import Claim, Relation, Said, holds, said_by
from ovsops.negatives.lexicon import Language
from ovsops.text.vocabulary import Vocabulary


class TextValidator:
    """Plain, grammatical, distinct, no synonym, and not what another caption of the region or its place says."""

    def validate(
        self, candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext]
    ) -> list[list[DropReason | None]]:
        """See `Validator`."""
        return [list(self._region(each, context)) for each, context in zip(candidates, contexts, strict=True)]

    def _region(self, each: CandidateNegatives, context: RegionContext) -> Iterator[DropReason | None]:
        known = _Known.of(each, context)
        own = words_of(each.positive)
        others = {words_of(text) for text in context.captions}
        seen: set[tuple[str, ...]] = set()
        for text in each.texts:
            words = words_of(text)
            faults = text_faults(each.positive, text)
            if words in seen:
                yield "F_DUPLICATE"
            elif words == own:
                yield "F_POSITIVE"
            elif faults:
                yield faults[0]
            elif words in others:
                yield "V_CAPTION"
            else:
                yield _truth(said_by(text), known)
            seen.add(words)


@dataclass(frozen=True, kw_only=True)
class _Known:
    """What is said of a region and its place, in the language of its caption."""

    positive: Said | None
    captions: tuple[Said, ...]
    neighbours: tuple[Said, ...]
    claims: frozenset[Claim]
    """Of the captions, beyond the positive's."""
    near_claims: frozenset[Claim]
    """Of the neighbours."""

    @classmethod
    def of(cls, each: CandidateNegatives, context: RegionContext) -> "_Known":
        positive = said_by(each.positive)
        captions = _said(context.captions, each.language)
        neighbours = _said(context.neighbours, each.language)
        said = frozenset[Claim]().union(*(caption.claims for caption in captions))
        return cls(
            positive=positive,
            captions=captions,
            neighbours=neighbours,
            claims=said - (positive.claims if positive is not None else frozenset()),
            near_claims=frozenset[Claim]().union(*(caption.claims for caption in neighbours)),
        )


def _truth(negative: Said | None, known: _Known) -> DropReason | None:
    """Why a negative may be true; None where the words do not say so."""
    positive = known.positive
    if negative is None:
        return "R_LANGUAGE"
    if positive is None or positive.language != negative.language:
        return "R_LANGUAGE_MISMATCH"
    if negative.is_said_in(positive):
        return "V_ENTAILED"
    if any(negative.is_said_in(caption) for caption in known.captions):
        return "V_CAPTION"
    if any(negative.is_said_in(caption) for caption in known.neighbours):
        return "V_NEIGHBOUR"
    if negative.words - positive.all_words:
        return None  # it says something that the lexicon does not know: for a model to judge
    language, changed = negative.language, negative.beyond(positive)
    gone = positive.beyond(negative)
    own = [_replaced(claim, gone, language) or holds(claim, language, positive.claims) for claim in changed]
    if "excluded" not in own:
        return "V_SYNONYM" if {"same", "confusable"}.intersection(own) else "V_OPEN"
    found = [holds(claim, language, known.claims) for claim in changed]
    if all(each == "same" for each in found):
        return "V_CAPTION"
    if all(each in ("same", "confusable") for each in found):
        return "V_MAY_HOLD"
    if all(holds(claim, language, known.near_claims) == "same" for claim in changed):
        return "V_NEIGHBOUR"
    return None


def _replaced(claim: Claim, gone: Sequence[Claim], language: Language) -> Relation | None:
    """How a claim stands to those that it took the place of: of its thing, else of any, as a new noun gives all that
    hangs on it a new head."""
    moved = [Claim(other.type, other.value, claim.head) for other in gone]
    return holds(claim, language, gone) or holds(claim, language, moved)


def _said(texts: Sequence[str], language: str) -> tuple[Said, ...]:
    """Captions that can be compared with one in that language."""
    found = (said_by(text) for text in texts)
    return tuple(said for said in found if said is not None and said.language == language)


@dataclass(frozen=True, kw_only=True)
class LabelRules:
    """What the classes of a vocabulary are called, and which of them may hold together."""

    names: Mapping[str, str]
    """Class name by each of its written forms, in lower case."""
    parents: Mapping[str, str] = field(default_factory=dict)
    """The class that a class is a kind of."""
    exclusive: tuple[frozenset[str], ...] = ()
    """Classes of which at most one holds."""
    only_exclusive: bool = False
    """Whether classes that share no exclusive group may hold together: then a negative must not name them."""

    def kin(self, name: str) -> Iterator[str]:
        """A class and all that it is a kind of."""
        seen: set[str] = set()
        while name and name not in seen:
            seen.add(name)
            yield name
            name = self.parents.get(name, "")

    def may_hold(self, one: str, other: str) -> bool:
        """Whether a region may be both."""
        if one in self.kin(other) or other in self.kin(one):
            return True
        return self.only_exclusive and not any(one in group and other in group for group in self.exclusive)

    @classmethod
    def of_vocabulary(cls, vocabulary: Vocabulary, *, only_exclusive: bool = False) -> "LabelRules":
        """The rules of a vocabulary. `VocabularyError` where two classes share a written form."""
        names: dict[str, str] = {}
        for spec in vocabulary.classes:
            forms = [spec.name, *(word for words in spec.prompts.values() for word in words)]
            for form in forms:
                if names.setdefault(form.lower(), spec.name) != spec.name:
                    raise VocabularyError(
                        f"vocabulary {vocabulary.name}: {form!r} names {names[form.lower()]} and {spec.name}: negatives"
                        " could not be told apart; give each class words of its own"
                    )
        return cls(
            names=names,
            parents={spec.name: spec.parent for spec in vocabulary.classes if spec.parent},
            exclusive=tuple(frozenset(group) for group in vocabulary.exclusive),
            only_exclusive=only_exclusive,
        )


class LabelValidator:
    """A negative names no class that was accepted for the region, nearly was, or may hold beside one that was."""

    def __init__(self, rules: LabelRules) -> None:
        self.rules = rules
        forms = sorted(rules.names, key=lambda form: (-len(form), form))
        spaced = [re.escape(form) for form in forms if not _is_unspaced(form)]
        # Where both kinds match at one place the unspaced form is the longer one. The edges stand outside the list,
        # so that its forms are tried where a word begins, and nowhere else.
        found = [re.escape(form) for form in forms if _is_unspaced(form)]
        found += [rf"(?<![\w-])(?:{'|'.join(spaced)})(?:s|es)?(?![\w-])"] if spaced else []
        self._pattern = re.compile("|".join(found)) if found else None
        self._named = lru_cache(maxsize=65_536)(self._find)

    def validate(
        self, candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext]
    ) -> list[list[DropReason | None]]:
        """See `Validator`."""
        return [
            [self._drop(text, each.positive, context) for text in each.texts]
            for each, context in zip(candidates, contexts, strict=True)
        ]

    def _drop(self, text: str, positive: str, context: RegionContext) -> DropReason | None:
        added = self._named(text) - self._named(positive)
        reasons = [self._class_drop(name, context) for name in sorted(added)]
        if not reasons or None in reasons:
            return None
        return reasons[0]

    def _class_drop(self, name: str, context: RegionContext) -> DropReason | None:
        if name in context.labels:
            return "V_LABEL"
        if name in context.contested:
            return "V_CONTESTED"
        return "V_MAY_HOLD" if any(self.rules.may_hold(name, own) for own in context.labels) else None

    def _find(self, text: str) -> frozenset[str]:
        """Classes that a text names; the longest form counts (树叶 is no 树)."""
        if self._pattern is None:
            return frozenset()
        found = (match.group() for match in self._pattern.finditer(text.lower()))
        return frozenset(name for form in found if (name := self._name(form)) is not None)

    def _name(self, form: str) -> str | None:
        names = self.rules.names
        return next((names[each] for each in (form, form[:-1], form[:-2]) if each in names), None)


def _is_unspaced(form: str) -> bool:
    return any("\u3400" <= char <= "\u9fff" for char in form)
