"""Ten negatives of a caption, the same for the same sample, settings and key. Axis: C candidates.

sampler = fit_sampler(sample, NegativeConfig(level="hard"))        # once, on a sample of the corpus
sampler.negatives_for("a red fish", key="image 7, region 2")       # any caption, in any process
"""

import hashlib
import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64, Int64

from ovsops.negatives.adversary import Adversary, fit_adversary
from ovsops.negatives.balance import Balance, fit_balance, inclusion
from ovsops.negatives.captions import accept
from ovsops.negatives.chinese import parse_chinese
from ovsops.negatives.combinations import combined_pool
from ovsops.negatives.config import NUM_CHANGES, NUM_NEGATIVES, NegativeConfig, Reason
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.english import parse_english
from ovsops.negatives.lexicon import (
    ATTRIBUTE_TYPES,
    LANGUAGES,
    AttributeType,
    Language,
    Lexicon,
    load_lexicon,
)
from ovsops.negatives.phrase import Phrase
from ovsops.negatives.pools import Memory, Pool, single_pool, slot_choices
from ovsops.negatives.trivial import OtherCaptions
from ovsops.negatives.values import ValueFrequencies, count_values

_DOUBLED = re.compile(r"\b(\w+)[ -]\1\b", re.IGNORECASE)
_MAY_DOUBLE = frozenset({"object", "material", "pattern"})
"""Types with words that names of things hold, too: no "plastic plastic bag"."""
_ORDER: dict[str, int] = {name: place for place, name in enumerate(ATTRIBUTE_TYPES)}
_GOLDEN = (5**0.5 - 1) / 2
"""Starts of further draws: spread over 0..1 as evenly as can be."""
_DRAWS = 3
"""Candidates that are drawn beyond ten for each that is wanted: many are drawn twice."""
_MAX_CACHED = 8192
"""Kinds of captions whose candidates a sampler remembers."""


@dataclass(frozen=True, kw_only=True)
class Negatives:
    """Ten captions that are false where the positive is true."""

    positive: str
    """The caption with its marks set straight: what negatives were made of."""
    negatives: tuple[str, ...]
    types: tuple[str, ...]
    """What was changed in each: `colour`, or `colour+material`."""
    language: Language


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A caption without negatives."""

    reason: Reason


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ready:
    """What one kind of caption draws from."""

    pool: Pool
    bounds: Float64[np.ndarray, " C"]
    """Running sums of the inclusion probabilities."""


@dataclass(kw_only=True, eq=False)
class NegativeSampler:
    """Negatives of captions of a corpus; see `fit_sampler`."""

    config: NegativeConfig
    frequencies: dict[Language, ValueFrequencies]
    balances: dict[Language, Balance]
    tilts: dict[Language, Balance]
    """Where combinations of several changes are drawn; the balance then weighs what was drawn."""
    others: dict[Language, OtherCaptions]
    adversaries: dict[Language, Adversary] = field(default_factory=dict)
    """Blind models of the languages whose rows they judge."""
    _memories: dict[Language, Memory] = field(default_factory=dict, repr=False)
    _cache: OrderedDict[tuple[object, ...], "_Ready | Reason"] = field(
        default_factory=OrderedDict, repr=False
    )

    def negatives_for(self, text: object, language: object = None, key: str = "") -> Negatives | Refusal:
        """Ten distinct negatives of a caption, or why there are none. `key` names the row: others draw others."""
        return self.candidates_for(text, language, key, count=NUM_NEGATIVES)

    def candidates_for(
        self, text: object, language: object = None, key: str = "", *, count: int
    ) -> Negatives | Refusal:
        """Negatives for a validator to choose ten from: those of `negatives_for` first, then up to `count` in all,
        drawn with the same probabilities where the level changes one attribute or several.
        """
        caption, found = accept(text, language, max_chars=self.config.max_chars)
        if caption is None:
            return Refusal(reason=found)  # type: ignore[arg-type]
        phrase = parse(caption, found)  # type: ignore[arg-type]
        is_trivial = self.config.level == "trivial"
        made = self._trivial(phrase, key, count) if is_trivial else self._changed(phrase, key, count)
        if isinstance(made, str):
            return Refusal(reason=made)
        if self.gives_away(caption, phrase.language, tuple(made)):
            return Refusal(reason="R_GIVEN_AWAY")
        return Negatives(
            positive=caption,
            negatives=tuple(made),
            types=tuple(made.values()),
            language=phrase.language,
        )

    def gives_away(self, caption: str, language: Language, negatives: tuple[str, ...]) -> bool:
        """Whether a blind model prefers a caption to its negatives, whoever wrote them, by more than the level
        allows."""
        adversary = self.adversaries.get(language)
        return adversary is not None and adversary.margin(caption, negatives) > self.config.margin_limit

    def _trivial(self, phrase: Phrase, key: str, count: int) -> dict[str, str] | Reason:
        generator = _generator(self.config.seed, key, phrase.text)
        captions = self.others[phrase.language].drawn(phrase, generator, count)
        return dict.fromkeys(captions, "object") if len(captions) >= NUM_NEGATIVES else "R_TOO_FEW_VALUES"

    def _changed(self, phrase: Phrase, key: str, count: int) -> dict[str, str] | Reason:
        """Negatives with their types."""
        num_changes = NUM_CHANGES[self.config.level]
        if num_changes == 1:
            ready = self._remembered(phrase)
            if isinstance(ready, str):
                return ready
            start = _uniform(self.config.seed, key, phrase.text)
        else:
            generator = _generator(self.config.seed, key, phrase.text)
            pool = self.pool_of(phrase, generator)
            if isinstance(pool, str):
                return pool
            ready = self._weighed(phrase, pool)
            start = float(generator.random())
        return self._written(phrase, ready, start, count)

    def _written(self, phrase: Phrase, ready: _Ready, start: float, count: int) -> dict[str, str] | Reason:
        """The picked candidates as texts; others take the place of those that cannot be written, likely ones first."""
        pool = ready.pool
        made: dict[str, str] = {}
        seen = {phrase.text.lower()}
        said: set[tuple[object, ...]] = set()
        types = self.frequencies[phrase.language].lexicon.types
        kinds = [slot.type for slot in phrase.slots]
        was_doubled = _DOUBLED.search(phrase.text) is not None
        doubling = set() if was_doubled else {s for s, kind in enumerate(kinds) if kind in _MAY_DOUBLE}
        for queue, enough in _queues(ready, start, count):
            if len(made) >= enough:
                continue
            for slots, terms in zip(pool.slots[queue].tolist(), pool.terms[queue].tolist(), strict=True):
                words = [types[kinds[s]].terms[t] for s, t in zip(slots, terms, strict=True)]
                says = (*slots, *[word.value for word in words])
                if says in said:  # two synonyms are one negative
                    continue
                text = phrase.replaced({s: word.surface for s, word in zip(slots, words, strict=True)})
                lowered = text.lower()
                if lowered in seen or (not doubling.isdisjoint(slots) and _DOUBLED.search(text)):
                    continue
                seen.add(lowered)
                said.add(says)
                made[text] = kinds[slots[0]] if len(slots) == 1 else _joined(kinds[s] for s in slots)
                if len(made) == count:
                    return made
                if len(made) == enough:
                    break
        return made if len(made) >= NUM_NEGATIVES else "R_TOO_FEW_VALUES"

    def _remembered(self, phrase: Phrase) -> "_Ready | Reason":
        """Candidates of captions with equal slots are equal: they are weighed once."""
        kind = (
            phrase.language,
            tuple((s.type, s.term, s.role, s.around, s.head, s.partners) for s in phrase.slots),
        )
        ready = self._cache.get(kind)
        if ready is None:
            pool = self.pool_of(phrase, None)
            ready = pool if isinstance(pool, str) else self._weighed(phrase, pool)
            self._cache[kind] = ready
            if len(self._cache) > _MAX_CACHED:
                self._cache.popitem(last=False)
        else:
            self._cache.move_to_end(kind)
        return ready

    def pool_of(self, phrase: Phrase, generator: np.random.Generator | None) -> Pool | Reason:
        """Candidates before they are balanced; `generator` draws combinations where a level changes several slots."""
        num_changes = NUM_CHANGES[self.config.level]
        frequencies = self.frequencies[phrase.language]
        choices = slot_choices(
            phrase, frequencies, self.config, num_changes, self._memories.setdefault(phrase.language, {})
        )
        if isinstance(choices, str):
            return choices
        if num_changes == 1 or generator is None:
            return single_pool(choices)
        tilt, lexicon = self.tilts[phrase.language], frequencies.lexicon
        pool = combined_pool(phrase, choices, tilt, lexicon, self.config, num_changes, generator)
        return pool if len(pool.slots) >= NUM_NEGATIVES else "R_TOO_FEW_VALUES"

    def _fitted(
        self, rows: Sequence[tuple[str, str]], phrases: Sequence[Phrase], lexicon: Lexicon
    ) -> Balance:
        """The balance of captions, given by key and text and as phrases, with the candidates that they have now."""
        pooled = [
            (phrase, pool)
            for (key, _), phrase in zip(rows, phrases, strict=False)
            if not isinstance(
                pool := self.pool_of(phrase, _generator(self.config.seed, key, phrase.text)), str
            )
        ]
        return fit_balance(
            [phrase for phrase, _ in pooled], [pool for _, pool in pooled], lexicon, self.config
        )

    def _weighed(self, phrase: Phrase, pool: Pool) -> _Ready:
        lexicon = self.frequencies[phrase.language].lexicon
        weights = pool.log_weights + self.balances[phrase.language].of_pool(phrase, pool, lexicon)
        return _Ready(pool=pool, bounds=np.cumsum(inclusion(weights)))


def parse(caption: str, language: Language) -> Phrase:
    """The slots of an accepted caption."""
    return parse_english(caption) if language == "en" else parse_chinese(caption)


def fit_sampler(sample: CorpusSample, config: NegativeConfig | None = None) -> NegativeSampler:
    """A sampler whose negatives look like captions of this corpus.

    An empty sample is allowed: words then come as often as the lexicon expects, and nothing is balanced.
    """
    config = config or NegativeConfig()
    sampler = NegativeSampler(config=config, frequencies={}, balances={}, tilts={}, others={})
    for language in LANGUAGES:
        lexicon = load_lexicon(language)
        rows = [
            (key, caption)
            for key, text in sample.captions(language)
            if (caption := accept(text, language, max_chars=config.max_chars)[0]) is not None
        ]
        phrases = [parse(caption, language) for _, caption in rows]
        sampler.frequencies[language] = count_values(phrases, lexicon)
        sampler.balances[language] = sampler.tilts[language] = Balance()
        sampler.others[language] = OtherCaptions(phrases, lexicon)
        num_changes = NUM_CHANGES[config.level]
        for _ in range(0 if not num_changes else 1 if num_changes == 1 else config.num_rounds):
            sampler.tilts[language] += sampler.balances[language]
            sampler.balances[language] = sampler._fitted(rows[: config.max_fitted], phrases, lexicon)
        if config.margin_limit < math.inf:
            adversary = fit_adversary(
                [
                    [answer.positive, *answer.negatives]
                    for key, caption in rows[: config.max_fitted]
                    if isinstance(answer := sampler.negatives_for(caption, language, key), Negatives)
                ]
            )
            if adversary is not None:
                sampler.adversaries[language] = adversary
    return sampler


def _queues(ready: _Ready, start: float, count: int) -> Iterator[tuple[Int64[np.ndarray, " N"], int]]:
    """Candidates in the order in which they are written, each with the number of texts at which to stop.

    Ten by systematic sampling, likely ones where those are not ten texts; beyond ten, further systematic samples from
    other starts: what takes the place of a dropped negative is as likely as that was. Likely ones fill the rest.
    """
    last = len(ready.bounds) - 1
    likely: Int64[np.ndarray, " N"] | None = None
    for draw in range(1 + (_DRAWS * (count - NUM_NEGATIVES) + NUM_NEGATIVES - 1) // NUM_NEGATIVES):
        begin = start if not draw else (start + draw * _GOLDEN) % 1
        places = begin + np.arange(NUM_NEGATIVES)
        enough = count if draw else NUM_NEGATIVES
        yield np.searchsorted(ready.bounds, places, side="right").clip(0, last), enough
        if likely is None:
            likely = np.argsort(-ready.pool.log_weights, kind="stable")
            yield likely, NUM_NEGATIVES
    if count > NUM_NEGATIVES and likely is not None:
        yield likely, count


def _joined(kinds: Iterable[AttributeType]) -> str:
    return "+".join(sorted(kinds, key=lambda kind: _ORDER[kind]))


def _digest(seed: int, key: str, text: str) -> int:
    data = f"{seed}\0{key}\0{text}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def _uniform(seed: int, key: str, text: str) -> float:
    return _digest(seed, key, text) / 2**64


def _generator(seed: int, key: str, text: str) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(_digest(seed, key, text)))
