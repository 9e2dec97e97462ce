"""Which regions a language model is asked about, and in which words: the same for an endpoint and for a batch stage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import pyarrow as pa

from ovsops.negatives.captions import accept
from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.lexicon import Language
from ovsops.negatives.llm_requests import LlmConfig
from ovsops.negatives.sampler import Refusal
from pipelines.llm_batch import VllmConfig, request_row
from pipelines.negatives_llm import LlmDraw
from pipelines.negatives_regions import DrawnRegions, RegionSource, whole_images
from pipelines.parts import seal_table
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import SealedUnit, UnitStage

_RULES_ALONE = frozenset({"R_NO_ATTRIBUTE", "R_TOO_FEW_ATTRIBUTES", "R_TOO_FEW_VALUES"})
"""Reasons of the rules that say nothing against the caption: a model may know more words."""

QUESTION = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("place", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("known", pa.list_(pa.string()), nullable=False),
        pa.field("question", pa.string(), nullable=False),
    ]
)
"""A question of a batch stage. `place` counts the questions of a shard; `question` is `question_digest`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Caption:
    """What negatives are wanted of."""

    key: str
    text: str
    language: Language
    known: tuple[str, ...] = ()
    """What else is true of the region: the model is told."""


def questions_about(regions: DrawnRegions, draw: LlmDraw, negatives: NegativeConfig) -> dict[int, Caption]:
    """By place the captions of the regions that the model is asked about."""
    captions: dict[int, Caption] = {}
    for i, (uid, text, answer) in enumerate(zip(regions.uids, regions.texts, regions.drawn, strict=True)):
        if isinstance(answer, Refusal) and answer.reason not in _RULES_ALONE:
            continue
        if not draw.is_wanted(uid, negatives.seed):
            continue
        caption, language = accept(text, None, max_chars=negatives.max_chars)
        if caption is None:
            raise AssertionError(f"the rules took a caption that is none: {text!r}")
        known = tuple(each for each in regions.contexts[i].captions if each not in (caption, text))
        captions[i] = Caption(key=uid, text=caption, language="zh" if language == "zh" else "en", known=known)
    return captions


def question_digest(caption: Caption, config: VllmConfig, llm: LlmConfig) -> str:
    """Of everything that the model is told, and which model: an answer to another question is none to this one."""
    asked = request_row(
        {
            "key": caption.key,
            "text": caption.text,
            "language": caption.language,
            "known": caption.known,
        },
        config,
        llm,
    )
    told = {"model": config.model, "revision": config.revision, "limit": config.max_model_len, **asked}
    text = json.dumps(told, sort_keys=True, ensure_ascii=False)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def digest_of_questions(digests: list[str]) -> str:
    """Of all questions of a shard, in order."""
    return blake2b("\n".join(digests).encode(), digest_size=16).hexdigest()


class QuestionStage(UnitStage):
    """Writes the questions about one shard, a file of `QUESTION` rows that waits among its parts."""

    name = "questions"

    def __init__(
        self,
        output: str,
        options: StorageOptions,
        run: str,
        *,
        labels: str,
        regions: RegionSource,
        draw: LlmDraw,
        vllm: VllmConfig,
    ) -> None:
        super().__init__(output, options, run)
        self.labels, self.regions, self.draw, self.vllm = labels, regions, draw, vllm

    def setup(self) -> None:
        """Open both outputs."""
        super().setup()
        self.label_storage = open_storage(self.labels, self.options)

    def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
        """Questions about the regions of one shard. Reads no pixel."""
        negatives = self.regions.sampler.config
        asked = self.draw.asked(negatives)
        regions = self.regions.read(self.label_storage, task["tables"]["instances"])
        rows: list[dict[str, Any]] = []
        for some in whole_images(regions):
            drawn = self.regions.draw(some, with_contexts=True)
            for caption in questions_about(drawn, self.draw, negatives).values():
                rows.append(
                    {
                        "shard": shard,
                        "place": len(rows),
                        "key": caption.key,
                        "text": caption.text,
                        "language": caption.language,
                        "known": list(caption.known),
                        "question": question_digest(caption, self.vllm, asked),
                    }
                )
        table = pa.Table.from_pylist(rows, schema=QUESTION)
        return SealedUnit(
            tables={"questions": seal_table(self.storage, "questions", shard, table, self.run)},
            read=regions.num_rows,
            kept=len(rows),
            left_out={},
            counts={"questions": digest_of_questions([row["question"] for row in rows])},
        )
