"""A captioner's words against the picture: clauses that FG-CLIP 2 does not see in the region are dropped.

Axes: R regions, D channels, T texts. A clause is compared with its contrasts: the same clause with another value of
an attribute in it (`a red ball` against `a blue ball`), or with the name of a rival class. It stays where it beats
them by a margin and is near the region at all. A clause without contrasts need only be near.

Sentences with "no" or "not" are no contrasts: models of this family hardly tell them from their opposites.
Does not find what a caption leaves out, nor wrong counts, places and relations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.regions.attributes import AttributeVocabulary, find_word, joined
from ovsops.regions.caption_config import GroundingConfig
from ovsops.regions.caption_text import Clause, clean_caption, join_clauses, split_clauses
from ovsops.regions.phrase_cache import PhraseCache
from ovsops.regions.said import DETECTOR, GROUNDED, RegionCaption


@dataclass(frozen=True, kw_only=True)
class ClauseCheck:
    """One clause and what speaks for it."""

    text: str
    is_kept: bool
    cosine: float
    margin: float | None
    """Above its best contrast; none where it has no contrast."""
    contrast: str
    """The best contrast; empty without one."""


@dataclass(frozen=True, kw_only=True)
class GroundedText:
    """What is left of a text."""

    text: str
    """Empty where no clause is supported."""
    checks: tuple[ClauseCheck, ...]
    num_unread: int
    """Clauses beyond `max_clauses`; they are dropped."""

    @property
    def dropped(self) -> tuple[str, ...]:
        """Clauses that the region does not support."""
        return tuple(check.text for check in self.checks if not check.is_kept)


def ground_text(
    text: str,
    feature: Float[Tensor, " D"],
    noun: str,
    *,
    language: str,
    encode: PhraseCache,
    vocabulary: AttributeVocabulary,
    rivals: Sequence[str] = (),
    config: GroundingConfig | None = None,
) -> GroundedText:
    """The supported clauses of `text`. `noun` is the region's class name, `rivals` names of classes it may be mistaken
    for. A clause without the noun is looked at behind it: `ball with a white stripe`.

    The region is not empty; an empty one supports nothing and is a ShapeError, so that nobody takes it for a verdict.
    """
    if not bool((feature != 0).any()):
        raise ShapeError(
            f"caption of {noun!r}: an empty region supports no clause; keep the class name instead"
        )
    config = config or GroundingConfig()
    clauses = split_clauses(text, language)
    checks = [
        _check(clause, feature, noun, language, encode, vocabulary, rivals, config)
        for clause in clauses[: config.max_clauses]
    ]
    kept = [clause for clause, check in zip(clauses, checks, strict=False) if check.is_kept]
    if kept and not checks[0].is_kept:  # what follows hangs on the first clause
        kept = [Clause(lead="", text=noun), *(Clause(lead=_lead(c, language), text=c.text) for c in kept)]
    return GroundedText(
        text=join_clauses(kept, language),
        checks=tuple(checks),
        num_unread=max(0, len(clauses) - config.max_clauses),
    )


def ground_caption(
    short: str,
    long: str,
    feature: Float[Tensor, " D"],
    noun: str,
    *,
    source: str,
    language: str,
    encode: PhraseCache,
    vocabulary: AttributeVocabulary,
    rivals: Sequence[str] = (),
    config: GroundingConfig | None = None,
) -> RegionCaption:
    """A captioner's short and long text as a caption of the region: cleaned, and without what is not supported.

    Where nothing of a text is left, the class name stands for it; where nothing of both is, the source is `detector`.
    """
    texts: list[str] = []
    dropped: list[str] = []
    for text in (short, long):
        grounded = ground_text(
            clean_caption(text).text,
            feature,
            noun,
            language=language,
            encode=encode,
            vocabulary=vocabulary,
            rivals=rivals,
            config=config,
        )
        texts.append(grounded.text)
        dropped += grounded.dropped
    return RegionCaption(
        short=texts[0] or noun,
        long=texts[1] or texts[0] or noun,
        source=source + GROUNDED if any(texts) else DETECTOR,
        dropped=tuple(dict.fromkeys(dropped)),
    )


def contrasts_of(
    clause: str,
    noun: str,
    *,
    language: str,
    vocabulary: AttributeVocabulary,
    rivals: Sequence[str],
    max_contrasts: int,
) -> list[str]:
    """The clause with one word changed: a value of an attribute for each of another base, the noun for rivals.

    Of overlapping words (`light red` and `red`) the longest counts. Values are known by their word (`wooden`) and
    by their name (`made of wood`). Rivals come first, then types in their order.
    """
    found: list[str] = []
    if match := find_word(noun, clause, language):
        found += [
            clause[: match.start()] + rival + clause[match.end() :] for rival in rivals if rival != noun
        ]
    taken: list[tuple[int, int]] = [match.span()] if match else []
    for kind in vocabulary.types:
        for forms in (
            [value.words[language] for value in kind.values],
            [value.name for value in kind.values],
        ):
            for place in sorted(range(len(forms)), key=lambda place: -len(forms[place])):
                match = find_word(forms[place], clause, language)
                if match is None or any(match.start() < end and start < match.end() for start, end in taken):
                    continue
                taken.append(match.span())
                own = kind.values[place].family
                found += [
                    clause[: match.start()] + form + clause[match.end() :]
                    for value, form in zip(kind.values, forms, strict=True)
                    if value.family != own and form
                ]
    return list(dict.fromkeys(found))[:max_contrasts]


def _check(
    clause: Clause,
    feature: Float[Tensor, " D"],
    noun: str,
    language: str,
    encode: PhraseCache,
    vocabulary: AttributeVocabulary,
    rivals: Sequence[str],
    config: GroundingConfig,
) -> ClauseCheck:
    whole = clause.text if find_word(noun, clause.text, language) else joined([noun, clause.text], language)
    contrasts = contrasts_of(
        whole,
        noun,
        language=language,
        vocabulary=vocabulary,
        rivals=rivals,
        max_contrasts=config.max_contrasts,
    )
    texts = encode([whole, *contrasts]).to(feature.device).double()
    cosine, *others = (texts @ feature.double()).tolist()
    best = max(range(len(others)), key=others.__getitem__, default=None)
    margin = None if best is None else cosine - others[best]
    is_sure = margin is None or (margin > 0 and margin >= config.margin)
    return ClauseCheck(
        text=clause.text,
        is_kept=is_sure and cosine >= config.min_cosine,
        cosine=cosine,
        margin=margin,
        contrast="" if best is None else contrasts[best],
    )


def _lead(clause: Clause, language: str) -> str:
    """A space or comma instead of what stood between this clause and one that is gone."""
    if clause.lead.isspace() or not clause.lead:
        return clause.lead
    return "，" if language == "zh" else ", "
