"""Language models as the negatives stage sees them: one that is asked now, and one that was asked before."""

import threading
from typing import Protocol

import pyarrow as pa

from ovsops.errors import RowError
from ovsops.negatives.candidates import CandidateNegatives, Source
from ovsops.negatives.config import NegativeConfig
from pipelines.endpoint_config import BUDGET_CODE, EndpointError
from pipelines.llm_batch import BatchError
from pipelines.llm_questions import question_digest, questions_about
from pipelines.llm_replies import read_replies, replies_path
from pipelines.negatives_llm import LlmDraw, LlmEndpoint, LlmTally
from pipelines.negatives_regions import DrawnRegions
from pipelines.storage import Storage

_HOPELESS = frozenset({"E_ENDPOINT_DENIED", BUDGET_CODE})
"""After these no further question is sent."""

E_LLM_REPLIES = "E_LLM_REPLIES"
"""Code of a shard whose stored replies are not there, or answer other questions."""


class Writer(Protocol):
    """Who writes negatives beside the rules."""

    def write(self, regions: DrawnRegions, tally: LlmTally) -> dict[int, CandidateNegatives | RowError]:
        """By place the model's candidates, or why it gave none, of the regions that it is asked about."""


class LlmWriter:
    """Asks an endpoint about regions, on one worker."""

    def __init__(self, draw: LlmDraw, endpoint: LlmEndpoint, negatives: NegativeConfig) -> None:
        """Reads the key: ConfigError where the environment does not hold it."""
        from pipelines.llm_negatives import LlmNegatives  # loads the HTTP client

        self.draw, self.negatives = draw, negatives
        self.model = LlmNegatives(endpoint, draw.asked(negatives))
        self._failures_in_a_row = 0
        self._lock = threading.Lock()  # units may run side by side

    def write(self, regions: DrawnRegions, tally: LlmTally) -> dict[int, CandidateNegatives | RowError]:
        """Asks now. EndpointError where nobody answers any more (`stop_after`), the key is refused, or the money is
        spent.
        """
        from pipelines.llm_negatives import LlmCounts

        captions = questions_about(regions, self.draw, self.negatives)
        counts = LlmCounts()
        found = dict(zip(captions, self.model.ask(list(captions.values()), counts), strict=True))
        tally.asked += len(captions)
        tally.written += counts.negatives
        tally.refused.update(counts.refused)
        tally.endpoint.add(counts.endpoint)
        answers: dict[int, CandidateNegatives | RowError] = {}
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


class StoredReplies:
    """What a batch stage has answered about the regions of one shard."""

    def __init__(self, storage: Storage, shard: str, draw: LlmDraw, negatives: NegativeConfig) -> None:
        """Reads the shard's replies. RowError where they are not there."""
        self.draw, self.negatives = draw, negatives
        self.where = f"{storage.url}/{replies_path(shard)}"
        try:
            self.replies = read_replies(storage, shard)
        except FileNotFoundError:
            raise RowError(
                E_LLM_REPLIES,
                f"{self.where} is not there: the shard was not asked about (the log says why), or somebody deleted it;"
                " run the recipe again",
            ) from None
        self.places = {uid: place for place, uid in enumerate(self.replies["key"].to_pylist())}

    def write(self, regions: DrawnRegions, tally: LlmTally) -> dict[int, CandidateNegatives | RowError]:
        """Reads what was answered. RowError where other questions were asked."""
        if self.draw.vllm is None:
            raise AssertionError("replies are stored of a batch stage alone")
        asked = self.draw.asked(self.negatives)
        captions = questions_about(regions, self.draw, self.negatives)
        places = [self.places.get(caption.key) for caption in captions.values()]
        replies = self.replies.take(pa.array(places, pa.int64())).to_pylist()
        answers: dict[int, CandidateNegatives | RowError] = {}
        source: Source = "llm"
        for (i, caption), reply in zip(captions.items(), replies, strict=True):
            if reply["question"] != question_digest(caption, self.draw.vllm, asked):
                raise RowError(
                    E_LLM_REPLIES,
                    f"{self.where} does not answer what is asked of region {caption.key}; delete it and run the recipe"
                    " again",
                )
            tally.endpoint.questions += 1
            tally.endpoint.requests += 1
            tally.endpoint.input_tokens += reply["input_tokens"]
            tally.endpoint.output_tokens += reply["output_tokens"]
            tally.refused.update(reply["refused"])
            if reply["error_code"] is not None:
                tally.endpoint.failed[reply["error_code"]] += 1
                tally.unanswered[reply["error_code"]] += 1
                answers[i] = BatchError(reply["error_code"], reply["error"])
                continue
            tally.endpoint.answered += 1
            tally.written += len(reply["negatives"])
            answers[i] = CandidateNegatives(
                key=caption.key,
                positive=caption.text,
                language=caption.language,
                texts=tuple(reply["negatives"]),
                types=tuple(reply["types"]),
                sources=(source,) * len(reply["negatives"]),
            )
        tally.asked += len(captions)
        return answers
