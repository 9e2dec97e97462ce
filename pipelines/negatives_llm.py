"""A language model as a writer of negatives in the negatives job: who is asked about which regions, what came of it.

The model's negatives go through the same validators as those by rule. Where it gave no answer, or too few that pass,
negatives by rule fill up, or the region gets none: each such region is counted.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ovsops.errors import ConfigError, RowError
from ovsops.negatives.candidates import (
    TOO_FEW,
    CandidateNegatives,
    Source,
    Validated,
    joined,
)
from ovsops.negatives.check import words_of
from ovsops.negatives.config import NUM_NEGATIVES, NegativeConfig
from ovsops.negatives.llm_requests import LlmConfig
from ovsops.negatives.sampler import Negatives, NegativeSampler, Refusal
from pipelines.endpoint_config import EndpointConfig, EndpointCounts
from pipelines.llm_batch import VllmConfig

_TOKENS_PER_NEGATIVE = 30
"""About what a short negative with its type takes as JSON."""
_TABLES = ("unanswered", "outcomes", "dropped", "refused")


@dataclass(frozen=True, kw_only=True)
class LlmEndpoint(EndpointConfig):
    """Who is asked, with room for an answer of many texts."""

    max_reply_tokens: int = 1500


@dataclass(frozen=True, kw_only=True)
class LlmDraw:
    """A language model writes negatives, beside the rules or in their place: behind an endpoint, or on the cluster's
    own GPUs."""

    endpoint: LlmEndpoint | None = None
    """Who is asked while a shard is worked on; null where `vllm` is given."""
    vllm: VllmConfig | None = None
    """Which model Ray Data's own vLLM stage runs: all questions are asked before the first shard is worked on. null
    where `endpoint` is given. Wants `--engine ray`, vLLM and GPUs."""
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
    key or whose money is spent: it is not committed, and the next start asks again. With `vllm` the run ends, and the
    next start asks about the shards whose answers are not stored."""
    max_unanswered_share: float = 0.05
    """A finished run with a larger share of questions without an answer ends with 3."""

    def __post_init__(self) -> None:
        if (self.endpoint is None) == (self.vllm is None):
            found = "neither endpoint nor vllm is" if self.vllm is None else "both endpoint and vllm are"
            raise ConfigError(
                f"llm: {found} given; give one of them: `endpoint: {{url: ..., model: ...}}` asks a server,"
                " `vllm: {model: ...}` runs the model on the cluster's own GPUs"
            )
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
        if self.runs.max_reply_tokens < least:
            name = "vllm" if self.endpoint is None else "endpoint"
            raise ConfigError(
                f"llm.{name}.max_reply_tokens is {self.runs.max_reply_tokens}: {self.num_asked} negatives take"
                f" about {least}, so that answers would be cut; raise it, or lower llm.num_asked"
            )

    @property
    def runs(self) -> LlmEndpoint | VllmConfig:
        """The one of both that is given."""
        found = self.endpoint or self.vllm
        if found is None:
            raise AssertionError("an LlmDraw with nobody to ask")
        return found

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
    """Questions and tokens; of `vllm`, too, which has no requests that are sent twice."""

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
        self, ten: CandidateNegatives | None, found: Validated, written: CandidateNegatives | RowError
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
    """What the summary says of the model: all committed shards, at today's prices. Questions and tokens are under
    `endpoint` or `vllm`."""
    plain = tally.to_plain()
    counts = plain.pop("endpoint")
    cost = draw.runs.cost(tally.endpoint.input_tokens, tally.endpoint.output_tokens)
    return {
        "model": draw.runs.model,
        **plain,
        "vllm" if draw.endpoint is None else "endpoint": counts,
        "cost": round(cost, 6),
    }


def over_limits(tally: LlmTally, draw: LlmDraw) -> list[str]:
    """A sentence where too many questions got no answer."""
    if tally.unanswered_share <= draw.max_unanswered_share:
        return []
    codes = ", ".join(f"{code} {count}" for code, count in tally.unanswered.most_common())
    return [
        f"{tally.unanswered.total()} of {tally.asked} questions to {draw.runs.model} got no answer ({codes};"
        f" llm.max_unanswered_share is {draw.max_unanswered_share:g})"
    ]


def candidates_of(
    key: str,
    answer: Negatives | Refusal,
    written: CandidateNegatives | RowError | None,
    draw: LlmDraw | None,
) -> CandidateNegatives | None:
    """What the validators are shown of a region: the model's before those by rule; None where nobody wrote any.

    What both wrote is shown once.
    """
    if isinstance(written, CandidateNegatives) and (draw is None or draw.otherwise == "none"):
        return written
    if isinstance(written, RowError) and draw is not None and draw.otherwise == "none":
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
