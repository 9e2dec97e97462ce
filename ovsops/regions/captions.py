"""Captions of regions that say what is supported and no more: the noun, and attributes that FG-CLIP 2 is sure of.

Axes: R regions, D channels. An attribute is said where its phrase ("red ball") beats every rival ("blue ball", ...,
"ball") by a margin; else it is declined, and the caption goes without it. Margins are fitted by
`ovsops.regions.caption_margins` so that few of the said values are wrong.

Does not check the noun: that is the matter of recalibration, presence and `verify`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.regions.attribute_ranks import AttributeRank, Ranks, rank_attributes
from ovsops.regions.attributes import AttributeValue, AttributeVocabulary, check_types, load_attributes
from ovsops.regions.caption_config import CaptionConfig
from ovsops.regions.phrase_cache import Encode, PhraseCache
from ovsops.regions.said import DETECTOR, FGCLIP2, AttributeChoice, RegionCaption


@dataclass(frozen=True, kw_only=True)
class CaptionCounts:
    """Of many regions."""

    num_regions: int
    accepted: dict[str, int]
    """By type: regions of which it is known."""
    declined: dict[str, int]
    """By type: regions of which it was asked and is not sure."""
    num_dropped_clauses: int
    by_source: dict[str, int]

    def declined_share(self, kind: str) -> float:
        """Share of the regions that were asked; nan where none was."""
        asked = self.accepted.get(kind, 0) + self.declined.get(kind, 0)
        return self.declined.get(kind, 0) / asked if asked else float("nan")


class RegionCaptioner:
    """Composes captions; keeps the features of the phrases that it has met."""

    def __init__(
        self,
        encode: Encode,
        *,
        vocabulary: AttributeVocabulary | None = None,
        config: CaptionConfig | None = None,
    ) -> None:
        self.config = config or CaptionConfig()
        self.vocabulary = vocabulary or load_attributes(self.config.words)
        self.phrases = PhraseCache(encode, max_phrases=self.config.max_phrases)
        asked = {name for names in self.config.class_attributes.values() for name in names}
        asked |= {
            key.partition(".")[0]
            for key in (*self.config.margins, *self.config.shade_margins, *self.config.without_bare)
        }
        check_types(asked.union(self.config.attributes, self.config.stuff_attributes), self.vocabulary)

    def rank(
        self,
        features: Float[Tensor, "R D"],
        is_empty: Bool[Tensor, " R"],
        nouns: Sequence[str],
        *,
        language: str,
        asked: Sequence[Sequence[str]] | None = None,
        with_bare: bool | None = None,
    ) -> list[Ranks]:
        """The best value of every type and its margin, before anything is declined; nothing for an empty region.

        `nouns` are the class names (or phrases) in the language, one a region. `asked` are the types of each, by
        default `config.attributes`. A type of which the noun says a value already is not asked. `with_bare` says for
        all types whether the noun alone competes; None leaves it to the config.
        """
        self.vocabulary.check_language(language)
        if not len(features) == len(is_empty) == len(nouns) == len(asked if asked is not None else nouns):
            raise ShapeError(
                f"{len(features)} regions, {len(is_empty)} flags, {len(nouns)} nouns,"
                f" {len(asked if asked is not None else nouns)} lists of types: one of each is wanted a region"
            )
        if nameless := [place for place, noun in enumerate(nouns) if not noun.strip()]:
            raise ShapeError(f"regions {nameless[:5]} have no noun; a caption begins with one")
        live = (~is_empty).nonzero()[:, 0].tolist()
        found: list[Ranks] = [{} for _ in nouns]
        types = self._types(nouns, language, asked)
        ranks = rank_attributes(
            features[live],
            [nouns[place] for place in live],
            [types[place] for place in live],
            language=language,
            vocabulary=self.vocabulary,
            encode=self.phrases,
            with_bare={
                name
                for name in self.vocabulary.names
                if (self.config.has_bare(name, language) if with_bare is None else with_bare)
            },
        )
        for place, rank in zip(live, ranks, strict=True):
            found[place] = rank
        return found

    def caption(
        self,
        features: Float[Tensor, "R D"],
        is_empty: Bool[Tensor, " R"],
        nouns: Sequence[str],
        *,
        language: str,
        asked: Sequence[Sequence[str]] | None = None,
    ) -> list[RegionCaption]:
        """A caption of each region; arguments as in `rank`. An empty region declines all that is asked."""
        ranks = self.rank(features, is_empty, nouns, language=language, asked=asked)
        types = self._types(nouns, language, asked)
        return [
            self._composed(noun, kinds, rank, language)
            for noun, kinds, rank in zip(nouns, types, ranks, strict=True)
        ]

    def _types(
        self, nouns: Sequence[str], language: str, asked: Sequence[Sequence[str]] | None
    ) -> list[tuple[str, ...]]:
        asked = [self.config.attributes] * len(nouns) if asked is None else asked
        said = {noun: self.vocabulary.mentions(noun, language) for noun in set(nouns)}
        return [
            tuple(name for name in dict.fromkeys(types) if name not in said[noun])
            for noun, types in zip(nouns, asked, strict=True)
        ]

    def _composed(self, noun: str, types: Sequence[str], ranks: Ranks, language: str) -> RegionCaption:
        values: dict[str, AttributeValue] = {}
        choices: dict[str, AttributeChoice] = {}
        for name in types:
            value = None if name not in ranks else self._accepted(name, ranks[name], language)
            if value is None:
                continue
            rank = ranks[name]
            word = value.words[language] if value.is_said else ""
            choices[name] = AttributeChoice(
                type=name,
                value=value.name,
                word=word,
                margin=min(rank.base_margin, rank.shade_margin) if value.base else rank.base_margin,
                runner_up=rank.runner_up,
            )
            if word:
                values[name] = value
        order = self.vocabulary.order[language]
        surest = sorted(values, key=lambda name: (-choices[name].margin, order.index(name)))
        short = surest[: self.config.max_short_attributes]
        return RegionCaption(
            short=self.vocabulary.caption(noun, {name: values[name] for name in short}, language),
            long=self.vocabulary.caption(noun, values, language),
            source=FGCLIP2 if values else DETECTOR,
            attributes=tuple(choices[name] for name in order if name in choices),
            declined=tuple(name for name in types if name not in choices),
        )

    def _accepted(self, name: str, rank: AttributeRank, language: str) -> AttributeValue | None:
        """The shade where it is sure enough, the base where only that is, else nothing; a tie is never sure."""
        if not 0 < rank.base_margin >= self.config.margin(name, language):
            return None
        surety = min(rank.base_margin, rank.shade_margin)
        is_shade = bool(rank.shade) and 0 < surety >= self.config.shade_margin(name, language)
        wanted = rank.shade if is_shade else rank.base
        return next(value for value in self.vocabulary.type(name).values if value.name == wanted)


def count_captions(captions: Iterable[RegionCaption]) -> CaptionCounts:
    """How often what was said, declined and dropped."""
    accepted: Counter[str] = Counter()
    declined: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    num_dropped = 0
    for caption in captions:
        accepted.update(choice.type for choice in caption.attributes)
        declined.update(caption.declined)
        sources[caption.source] += 1
        num_dropped += len(caption.dropped)
    return CaptionCounts(
        num_regions=sources.total(),
        accepted=dict(accepted),
        declined=dict(declined),
        num_dropped_clauses=num_dropped,
        by_source=dict(sources),
    )
