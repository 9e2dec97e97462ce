"""Negatives by a language model behind an endpoint: asked side by side, retried, paid for, and counted.

    writer = LlmNegatives(endpoint_config, LlmConfig())
    found = writer.ask([Caption(key="r1", text="a red ball", language="en")])   # candidates, or why there are none
    writer.counts.endpoint.cost(endpoint_config)

An answer of another shape is asked for once more. What comes is `CandidateNegatives` with source `llm`: it goes through
the same validators as negatives by rule.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ovsops.errors import RowError
from ovsops.negatives.candidates import CandidateNegatives
from ovsops.negatives.captions import accept
from ovsops.negatives.llm_replies import LlmReply, ReplyError, parse_reply
from ovsops.negatives.llm_requests import LlmConfig, negatives_request
from pipelines.endpoint import Endpoint, Question
from pipelines.endpoint_config import EndpointConfig, EndpointCounts, EndpointError
from pipelines.llm_questions import Caption


@dataclass(kw_only=True)
class LlmCounts:
    """What became of captions and answers, and what they cost."""

    endpoint: EndpointCounts = field(default_factory=EndpointCounts)
    """Questions, requests, tokens; `endpoint.cost(config)` is the money."""
    negatives: int = 0
    """Candidates that came of it, before validation."""
    refused: Counter[str] = field(default_factory=Counter)
    """Captions and negatives by the codes of `config.REASONS`, answers by those of `REPLY_FAULTS`: an answer that was
    asked for again counts each time."""

    def add(self, other: "LlmCounts") -> None:
        """Count what the other counted, too."""
        self.endpoint.add(other.endpoint)
        self.negatives += other.negatives
        self.refused.update(other.refused)


class LlmNegatives:
    """A writer of negatives, for one worker."""

    def __init__(self, endpoint: EndpointConfig, config: LlmConfig) -> None:
        self.config = config
        self.endpoint = Endpoint(endpoint)
        self.counts = LlmCounts()
        self._lock = threading.Lock()

    def ask(
        self, captions: Sequence[Caption], total: LlmCounts | None = None
    ) -> list[CandidateNegatives | RowError]:
        """Candidates of each caption, or why there are none: a reason of `captions.accept`, or an `EndpointError`.

        What became of these captions is added to `total`, too.
        """
        counts = LlmCounts()
        found: list[CandidateNegatives | RowError] = []
        places: list[int] = []
        questions: list[Question[LlmReply]] = []
        for place, caption in enumerate(captions):
            text, reason = accept(caption.text, caption.language, max_chars=self.config.max_chars)
            if text is None:
                counts.refused[str(reason)] += 1
                found.append(RowError(str(reason), f"{caption.key}: no caption to make negatives of"))
                continue
            found.append(RowError("E_ENDPOINT_REPLY", f"{caption.key}: not asked"))
            places.append(place)
            request = negatives_request(text, caption.language, self.config, known=caption.known)
            parse = partial(self._parse, counts, caption, text)
            questions.append(Question(dialogue=request, jpeg=None, parse=parse))
        answers = self.endpoint.ask_all(questions, counts.endpoint)
        for place, answer in zip(places, answers, strict=True):
            if isinstance(answer, EndpointError):
                found[place] = answer
                continue
            counts.refused.update(answer.refused)
            counts.negatives += len(answer.candidates.texts)
            found[place] = answer.candidates
        with self._lock:
            self.counts.add(counts)
        if total is not None:
            total.add(counts)
        return found

    def _parse(self, counts: LlmCounts, caption: Caption, text: str, reply: str) -> LlmReply:
        try:
            return parse_reply(
                reply, key=caption.key, positive=text, language=caption.language, config=self.config
            )
        except ReplyError as fault:
            counts.refused[fault.code] += 1
            raise
