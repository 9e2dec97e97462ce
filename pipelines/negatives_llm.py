"""A language model as a writer of negatives in the negatives job: who is asked about which regions, what came of it.

The model's negatives go through the same validators as those by rule. Where it gave no answer, or too few that pass,
negatives by rule fill up, or the region gets none: each such region is counted.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ovsops.errors import ConfigError
from ovsops.negatives.candidates import (
    TOO_FEW,
    CandidateNegatives,
    RegionContext,
    Source,
    Validated,
    joined,
)
from ovsops.negatives.captions import accept
from ovsops.negatives.check import words_of
from ovsops.negatives.config import NUM_NEGATIVES, NegativeConfig
from ovsops.negatives.llm_requests import LlmConfig
from ovsops.negatives.sampler import Negatives, NegativeSampler, Refusal
from pipelines.endpoint_config import BUDGET_CODE, EndpointConfig, EndpointCounts, EndpointError

_RULES_ALONE = frozenset({"R_NO_ATTRIBUTE", "R_TOO_FEW_ATTRIBUTES", "R_TOO_FEW_VALUES"})
"""Reasons of the rules that say nothing against the caption: a model may know more words."""
_TOKENS_PER_NEGATIVE = 30
"""About what a short negative with its type takes as JSON."""
_TABLES = ("unanswered", "outcomes", "dropped", "refused")
_HOPELESS = frozenset({"E_ENDPOINT_DENIED", BUDGET_CODE})
"""After these no further question is sent."""


@dataclass(frozen=True, kw_only=True)
class LlmEndpoint(EndpointConfig):
    """Who is asked, with room for an answer of many texts."""

    max_reply_tokens: int = 1500


@dataclass(frozen=True, kw_only=True)
class LlmDraw:
    """A language model writes negatives, beside the rules or in their place."""

    endpoint: LlmEndpoint
    """Who is asked."""
    share: float = 1.0
    """Share of the regions that it is asked about, drawn by seed and uid; the others get negatives by rule."""
    most: int = NUM_NEGATIVES
    """So many of a region's ten are the model's at most; negatives by rule are the rest."""
    max_of_type: int = NUM_NEGATIVES
    """So many of the model's are of one type at most: models like to change colours."""
    otherwise: Literal["rule", "none"] = "rule"
    """Where the model gave no answer, or too few that pass: negatives by rule fill up; `none`: the region gets none,
    with a reason."""
    num_asked: int = 14
    """Negatives of one answer: more than ten, as some are dropped. An answer with another number is refused."""
    max_reply_chars: int = 20_000
    """A longer answer is refused unread."""
    stop_after: int = 64
    """After this many questions in a row without an answer a shard fails, and so does one whose endpoint refuses the
    key or whose money is spent: it is not committed, and the next start asks again."""
    max_unanswered_share: float = 0.05
    """A finished run with a larger share of questions without an answer ends with 3."""

    def __post_init__(self) -> None:
        for name in ("share", "max_unanswered_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}; a share from 0 to 1 is wanted")
        if self.share == 0:
            raise ConfigError(
                "llm.share is 0: nothing would be asked; leave `llm` out, or give a share over 0"
            )
        for name in ("most", "max_of_type"):
            if not 1 <= getattr(self, name) <= NUM_NEGATIVES:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}; 1 to {NUM_NEGATIVES} are wanted")
        if self.otherwise == "none" and self.most < NUM_NEGATIVES:
            raise ConfigError(
                f"llm.otherwise is none, so that nobody writes the other {NUM_NEGATIVES - self.most} negatives"
                f" (llm.most is {self.most}); set most to {NUM_NEGATIVES}, or otherwise to rule"
            )
        if self.stop_after < 1:
            raise ConfigError(f"llm.stop_after is {self.stop_after}; it must be 1 or more")
        self.asked(NegativeConfig())  # refuses numbers that cannot be asked for
        least = _TOKENS_PER_NEGATIVE * self.num_asked
        if self.endpoint.max_reply_tokens < least:
            raise ConfigError(
                f"llm.endpoint.max_reply_tokens is {self.endpoint.max_reply_tokens}: {self.num_asked} negatives take"
                f" about {least}, so that answers would be cut; raise it, or lower llm.num_asked"
            )

    def asked(self, negatives: NegativeConfig) -> LlmConfig:
        """What is asked for at the job's level. ConfigError for trivial negatives, which need no model."""
        return LlmConfig(
            level=negatives.level,
            max_chars=negatives.max_chars,
            num_asked=self.num_asked,
            max_reply_chars=self.max_reply_chars,
        )

    def is_wanted(self, uid: str, seed: int) -> bool:
        """Whether the model is asked about a region: the same answer in every start and on every machine."""
        digest = hashlib.blake2b(f"llm\0{seed}\0{uid}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2**64


@dataclass(kw_only=True)
class LlmTally:
    """What became of the regions of a unit that the model was asked about."""

    asked: int = 0
    """Answered ones and unanswered ones together; also those with negatives of the model alone, with some, by rule
    after all, and with none."""
    unanswered: Counter[str] = field(default_factory=Counter)
    """By code."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """`model`, `both`, `rule`, `none`: who wrote the ten."""
    dropped: Counter[str] = field(default_factory=Counter)
    """The model's candidates that a validator refused, by reason."""
    refused: Counter[str] = field(default_factory=Counter)
    """Texts and whole answers that were no usable ones, by code."""
    written: int = 0
    """The model's candidates that went to the validators."""
    endpoint: EndpointCounts = field(default_factory=EndpointCounts)

    def to_plain(self) -> dict[str, Any]:
        """Plain data, codes sorted."""
        return {
            "asked": self.asked,
            "written": self.written,
            **{name: dict(sorted(getattr(self, name).items())) for name in _TABLES},
            "endpoint": self.endpoint.to_plain(),
        }

    @classmethod
    def of(cls, plain: Iterable[Mapping[str, Any]]) -> "LlmTally":
        """All of what `to_plain` of several tallies says, together."""
        total = cls()
        for each in plain:
            total.asked += each["asked"]
            total.written += each["written"]
            for name in _TABLES:
                getattr(total, name).update(each[name])
            counts = dict(each["endpoint"])
            total.endpoint.add(EndpointCounts(**counts | {"failed": Counter(counts["failed"])}))
        return total

    def settle(
        self, ten: CandidateNegatives | None, found: Validated, written: CandidateNegatives | EndpointError
    ) -> None:
        """Count who wrote the ten of a region, and what the validators said of the model's candidates."""
        if isinstance(written, CandidateNegatives):
            self.dropped.update(
                reason for reason in found.reasons[: len(written.texts)] if reason is not None
            )
        if ten is None:
            self.outcomes["none"] += 1
        elif len(set(ten.sources)) > 1:
            self.outcomes["both"] += 1
        else:
            self.outcomes["model" if ten.sources[0] == "llm" else "rule"] += 1

    @property
    def unanswered_share(self) -> float:
        """Of the regions that were asked about; 0 where none was."""
        return self.unanswered.total() / self.asked if self.asked else 0.0


def llm_totals(tally: LlmTally, draw: LlmDraw) -> dict[str, Any]:
    """What the summary says of the model: all committed shards, at today's prices."""
    return {
        "model": draw.endpoint.model,
        **tally.to_plain(),
        "cost": round(tally.endpoint.cost(draw.endpoint), 6),
    }


def over_limits(tally: LlmTally, draw: LlmDraw) -> list[str]:
    """A sentence where too many questions got no answer."""
    if tally.unanswered_share <= draw.max_unanswered_share:
        return []
    codes = ", ".join(f"{code} {count}" for code, count in tally.unanswered.most_common())
    return [
        f"{tally.unanswered.total()} of {tally.asked} questions to {draw.endpoint.model} got no answer ({codes};"
        f" llm.max_unanswered_share is {draw.max_unanswered_share:g})"
    ]


class LlmWriter:
    """Asks about regions, on one worker."""

    def __init__(self, draw: LlmDraw, negatives: NegativeConfig) -> None:
        """Reads the key: ConfigError where the environment does not hold it."""
        from pipelines.llm_negatives import LlmNegatives  # loads the HTTP client

        self.draw, self.seed, self.max_chars = draw, negatives.seed, negatives.max_chars
        self.model = LlmNegatives(draw.endpoint, draw.asked(negatives))
        self._failures_in_a_row = 0
        self._lock = threading.Lock()  # units may run side by side

    def write(
        self,
        uids: Sequence[str],
        texts: Sequence[str | None],
        drawn: Sequence[Negatives | Refusal],
        contexts: Sequence[RegionContext],
        tally: LlmTally,
    ) -> dict[int, CandidateNegatives | EndpointError]:
        """By place the model's candidates, or why it gave none, of the regions that it is asked about.

        `drawn` is what the rules say of each region's text. EndpointError where nobody answers any more
        (`stop_after`), the key is refused, or the money is spent.
        """
        from pipelines.llm_negatives import Caption, LlmCounts

        captions: dict[int, Caption] = {}
        for i, (uid, text, answer) in enumerate(zip(uids, texts, drawn, strict=True)):
            if isinstance(answer, Refusal) and answer.reason not in _RULES_ALONE:
                continue
            if not self.draw.is_wanted(uid, self.seed):
                continue
            caption, language = accept(text, None, max_chars=self.max_chars)
            if caption is None:
                raise AssertionError(f"the rules took a caption that is none: {text!r}")
            known = tuple(each for each in contexts[i].captions if each not in (caption, text))
            captions[i] = Caption(
                key=uid, text=caption, language="zh" if language == "zh" else "en", known=known
            )
        counts = LlmCounts()
        found = dict(zip(captions, self.model.ask(list(captions.values()), counts), strict=True))
        tally.asked += len(captions)
        tally.written += counts.negatives
        tally.refused.update(counts.refused)
        tally.endpoint.add(counts.endpoint)
        answers: dict[int, CandidateNegatives | EndpointError] = {}
        for i, written in found.items():
            if not isinstance(written, CandidateNegatives | EndpointError):
                raise AssertionError(f"a caption was asked about that is none: {written}")
            self._note(written, tally)
            answers[i] = written
        return answers

    def _note(self, answer: CandidateNegatives | EndpointError, tally: LlmTally) -> None:
        """Count a failure, or fail the shard where asking on is no use."""
        with self._lock:
            if isinstance(answer, CandidateNegatives):
                self._failures_in_a_row = 0
                return
            tally.unanswered[answer.code] += 1
            self._failures_in_a_row += 1
            number = self._failures_in_a_row
            if answer.code not in _HOPELESS and number < self.draw.stop_after:
                return
            self._failures_in_a_row = 0
        spent = tally.endpoint
        row = f"{number} questions in a row got no answer (llm.stop_after), the last one: "
        said = "" if answer.code in _HOPELESS else row
        raise EndpointError(
            answer.code,
            f"{said}{answer}. Nothing of this shard is kept, nor are its {spent.requests} requests"
            f" ({spent.input_tokens} tokens in, {spent.output_tokens} out) in the summary; when the endpoint answers,"
            " run the recipe again",
        )


def candidates_of(
    key: str,
    answer: Negatives | Refusal,
    written: CandidateNegatives | EndpointError | None,
    draw: LlmDraw | None,
) -> CandidateNegatives | None:
    """What the validators are shown of a region: the model's before those by rule; None where nobody wrote any.

    What both wrote is shown once.
    """
    if isinstance(written, CandidateNegatives) and (draw is None or draw.otherwise == "none"):
        return written
    if isinstance(written, EndpointError) and draw is not None and draw.otherwise == "none":
        return None
    by_rule = None
    if isinstance(answer, Negatives):
        rule: Source = "rule"
        by_rule = CandidateNegatives(
            key=key,
            positive=answer.positive,
            language=answer.language,
            texts=answer.negatives,
            types=answer.types,
            sources=(rule,) * len(answer.negatives),
        )
    if not isinstance(written, CandidateNegatives):
        return by_rule
    if by_rule is None:
        return written
    there = {words_of(text) for text in written.texts}
    new = [place for place, text in enumerate(by_rule.texts) if words_of(text) not in there]
    return joined(written, by_rule.only(new))


def choose_written(
    kept: CandidateNegatives, answer: Negatives | Refusal, draw: LlmDraw, sampler: NegativeSampler
) -> tuple[CandidateNegatives | None, str]:
    """The ten of a region that the model was asked about, its own first; or None, and the reason.

    The rest are the rules', in their order, also those that the model wrote, too. Where a blind model picks the caption
    among ten that the model had a hand in, the rules' own ten are taken.
    """
    by_model = _of_model(kept, draw)
    rules = answer.negatives if isinstance(answer, Negatives) and draw.otherwise == "rule" else ()
    ranks = {words_of(text): rank for rank, text in enumerate(rules)}
    words = [words_of(text) for text in kept.texts]
    by_rule = sorted((p for p, own in enumerate(words) if own in ranks), key=lambda p: ranks[words[p]])
    reason = TOO_FEW
    for own in (by_model, []):
        places = [*own, *(place for place in by_rule if place not in own)][:NUM_NEGATIVES]
        if len(places) < NUM_NEGATIVES:
            continue
        sources: tuple[Source, ...] = tuple("llm" if place in own else "rule" for place in places)
        ten = replace(kept.only(places), sources=sources)
        if not own or not sampler.gives_away(ten.positive, ten.language, ten.texts):
            return ten, ""
        reason = "R_GIVEN_AWAY"
    return None, reason


def _of_model(kept: CandidateNegatives, draw: LlmDraw) -> list[int]:
    """Places of the model's negatives that may be among the ten."""
    kinds: Counter[str] = Counter()
    places: list[int] = []
    for place, (kind, source) in enumerate(zip(kept.types, kept.sources, strict=True)):
        if source == "llm" and kinds[kind] < draw.max_of_type and len(places) < draw.most:
            kinds[kind] += 1
            places.append(place)
    return places
