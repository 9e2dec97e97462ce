"""Negatives by a language model on the cluster's own GPUs: Ray Data's batch stage around vLLM.

    stage = llm_stage(VllmConfig(model="..."), LlmConfig())   # ConfigError where vLLM is missing
    dataset = stage(dataset)                  # rows in: key, text, language, known; rows out: see `reply_row`

This file knows Ray, as it hands Ray's own operator on. vLLM is no dependency of this package: it wants its own torch.
"""

import importlib.util
import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ovsops.errors import ConfigError, RowError
from ovsops.negatives.captions import accept
from ovsops.negatives.llm_replies import ReplyError, parse_reply
from ovsops.negatives.llm_requests import LlmConfig, negatives_request
from pipelines.counted import counted
from pipelines.runner import Engine, RayConfig, RayEngine, Step

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.llm import vLLMEngineProcessorConfig

logger = logging.getLogger(__name__)

_ERROR_COLUMN = "__inference_error__"
"""Where Ray 2.60 puts why a row failed, with `should_continue_on_error`."""
_CARRIED = ("shard", "place", "question")
"""Columns that a reply takes over from its question."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_CPUS = 0.25
"""CPU share of each task and actor of the stage but the engine: by default each takes a whole one."""
_ERROR_CHARS = 300
_RAISED = re.compile(
    r"^(?!ray\.exceptions\.)[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt)\b.{0,300}", re.MULTILINE
)
"""A line at the end of a traceback, but for Ray's own wrapping."""


class BatchError(RowError):
    """A question that got no usable answer of a batch stage. Codes:

    E_LLM        the engine failed at this question: too long for the model, or refused
    E_LLM_REPLY  an answer that cannot be used; `llm.refused` says why
    """


@dataclass(frozen=True, kw_only=True)
class VllmConfig:
    """The engine. Field names are ours; `processor_config` gives Ray's."""

    model: str
    """Folder or hub repository of a chat model."""
    revision: str | None = None
    """Commit of a hub repository, 40 hex digits. Ray's own chat template and tokenizer stages know none: what a night
    depends on should be a folder."""
    replicas: int = 1
    """Engines side by side."""
    gpus_per_replica: int = 1
    """Tensor parallel size of one engine."""
    accelerator_type: str | None = None
    """Ray's name of the GPU, such as `H100`; None takes any."""
    batch_size: int = 64
    """Rows that are handed to an engine at a time."""
    max_model_len: int = 4096
    """Tokens of question and answer together at most."""
    max_reply_tokens: int = 1500
    temperature: float = 0.7
    seed: int = 0
    input_price: float = 0.0
    """Money for a million input tokens."""
    output_price: float = 0.0
    """Money for a million output tokens."""

    def __post_init__(self) -> None:
        if not self.model.strip():
            raise ConfigError("llm.vllm.model is empty; give a folder or a hub repository of a chat model")
        if self.revision is not None and not _COMMIT.fullmatch(self.revision):
            raise ConfigError(
                f"llm.vllm.revision is {self.revision}; a commit of 40 hex digits is wanted, as a branch may move"
            )
        for name in ("replicas", "gpus_per_replica", "batch_size", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"llm.vllm.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.max_model_len <= self.max_reply_tokens:
            raise ConfigError(
                f"llm.vllm.max_model_len is {self.max_model_len}: no room for a question beside {self.max_reply_tokens}"
                " tokens of answer (max_reply_tokens)"
            )
        for name in ("temperature", "input_price", "output_price"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"llm.vllm.{name} is {getattr(self, name)}; it must be 0 or more")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Money, by the prices."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


VLLM_SETTINGS = (
    "replicas",
    "gpus_per_replica",
    "accelerator_type",
    "batch_size",
    "input_price",
    "output_price",
)
"""Fields that say where the model runs, not what it is asked: they may change between starts of one output."""


def check_vllm() -> None:
    """`ConfigError` where vLLM cannot be imported here: a run finds that out before it reads anything.

    "Here" is the driver. A private Ray runs its actors in the same environment; of the nodes of a cluster that is
    joined nothing is known before they start.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "llm.vllm: vLLM is not installed here; install it, on a cluster also on every node with GPUs (`pip install"
            " 'ray[llm]'` brings the version that Ray was tested with), or give `llm.endpoint` the URL of a server that"
            " runs the model"
        )


def gpu_shortage(config: VllmConfig, ray_config: RayConfig) -> str:
    """Why a private Ray could never run the engines at once, or nothing: Ray itself would wait for ever.

    Of a cluster that is joined nothing is known here.
    """
    if ray_config.address != "local":
        return ""
    import torch  # takes seconds, and only this wants it

    gpus, cpus = torch.cuda.device_count(), ray_config.num_cpus or os.cpu_count() or 1
    wanted = config.replicas * config.gpus_per_replica
    if wanted > gpus:
        return (
            f"llm.vllm asks for {counted(wanted, 'GPUs')} (replicas x gpus_per_replica), this machine has {gpus}: lower"
            " them, join a cluster that has them (ray.address), or give llm.endpoint the URL of a server that runs the"
            " model"
        )
    needed = (
        config.replicas * (3 * _CPUS + config.gpus_per_replica) + 2 * _CPUS
    )  # with each GPU Ray takes a whole CPU
    if needed > cpus:
        return (
            f"llm.vllm: the engines and what feeds them need {needed:g} CPU shares at once, there are {cpus}: raise"
            " ray.num_cpus (shares may be more than there are cores), or lower llm.vllm.replicas"
        )
    return ""


def processor_config(config: VllmConfig) -> "vLLMEngineProcessorConfig":
    """Ray's own configuration of the stage. Needs no vLLM."""
    from ray.data.llm import vLLMEngineProcessorConfig

    engine: dict[str, Any] = {
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.gpus_per_replica,
        "enable_prefix_caching": True,  # all questions begin alike
        "seed": config.seed,
        "trust_remote_code": False,
    }
    if config.revision is not None:
        engine |= {"revision": config.revision, "tokenizer_revision": config.revision}
    return vLLMEngineProcessorConfig(
        model_source=config.model,
        engine_kwargs=engine,
        batch_size=config.batch_size,
        concurrency=(config.replicas, config.replicas),
        accelerator_type=config.accelerator_type,
        should_continue_on_error=True,  # a row that fails is a row with a reason
        chat_template_stage={"num_cpus": _CPUS},
        tokenize_stage={"num_cpus": _CPUS},
        detokenize_stage={"num_cpus": _CPUS},
    )


def llm_stage(
    config: VllmConfig, llm: LlmConfig, *, build: "Callable[..., Callable[[Dataset], Dataset]] | None" = None
) -> "Callable[[Dataset], Dataset]":
    """The stage; `ConfigError` without vLLM. Starts Ray where none runs.

    `build` stands in the place of Ray's `build_processor`, for tests.
    """
    if build is None:
        check_vllm()
        from ray.data.llm import build_processor

        build = build_processor
    processor = build(
        processor_config(config),
        preprocess=partial(request_row, config=config, llm=llm),
        preprocess_map_kwargs={"num_cpus": _CPUS},
        postprocess_map_kwargs={"num_cpus": _CPUS},
    )
    # Rows that failed pass Ray's own postprocess by, so that answers are read after it.
    return lambda dataset: processor(dataset).map(partial(reply_row, llm=llm), num_cpus=_CPUS)


class BatchAsker(Protocol):
    """Answers questions in one long stream."""

    def answers(self, engine: Engine, tasks: Sequence[pa.Table], read: Step) -> Iterator[pa.Table]:
        """Rows of `reply_row` with `shard`, `place` and `question`, in any order, for the questions that `read` makes
        of the tasks."""


@dataclass(frozen=True, kw_only=True)
class VllmAsker:
    """Ray Data's own stage around vLLM."""

    config: VllmConfig
    llm: LlmConfig
    build: "Callable[..., Callable[[Dataset], Dataset]] | None" = None
    """Stands in the place of Ray's `build_processor`, for tests."""

    def answers(self, engine: Engine, tasks: Sequence[pa.Table], read: Step) -> Iterator[pa.Table]:
        """One execution of Ray Data: the model is loaded once. ConfigError for another engine, or without vLLM;
        BatchError E_LLM where the stage as a whole ends."""
        if not isinstance(engine, RayEngine):
            raise ConfigError(NEEDS_RAY)
        from ray.exceptions import RayError

        stage = llm_stage(self.config, self.llm, build=self.build)
        try:
            yield from engine.units_through(tasks, read, stage)
        except RayError as error:
            logger.error("Ray's stage for language models: %s", error)
            raise BatchError(
                "E_LLM",
                f"llm.vllm: Ray's stage with {self.config.model} ended: {_first_cause(error)}. What it answered of"
                " whole shards is stored; when the cause is mended, run the recipe again",
            ) from error


def _first_cause(error: Exception) -> str:
    """The line that says what happened on the worker: Ray's text begins with it, and ends with what came of it."""
    text = str(error).strip()
    found = _RAISED.search(text)
    return (found[0] if found else text.rpartition("\n")[2]).strip().rstrip(".")


NEEDS_RAY = (
    "llm.vllm is a stage of Ray Data, and the engine is inline: run it with `--engine ray`, or give llm.endpoint the"
    " URL of a server that runs the model"
)


def request_row(row: Mapping[str, Any], config: VllmConfig, llm: LlmConfig) -> dict[str, Any]:
    """A row of `key`, `text`, `language` and `known` with its question. `captions.accept` must take the text."""
    text, reason = accept(row["text"], row["language"], max_chars=llm.max_chars)
    if text is None:
        raise ConfigError(
            f"llm: row {row['key']} has no caption to ask about ({reason}); leave such rows out first"
        )
    known = row.get("known")
    request = negatives_request(text, row["language"], llm, known=() if known is None else tuple(known))
    return {
        "key": row["key"],
        "text": text,
        "language": row["language"],
        "messages": [
            {"role": "system", "content": request.system},
            {"role": "user", "content": request.user},
        ],
        "sampling_params": {
            "temperature": config.temperature,
            "max_tokens": config.max_reply_tokens,
            "seed": config.seed,
            "structured_outputs": {"json": json.dumps(request.schema)},
        },
    }


def reply_row(row: Mapping[str, Any], llm: LlmConfig) -> dict[str, Any]:
    """`key`, `negatives`, `types`, `refused` (codes of texts, or of the answer), `error_code`, `error` and the tokens
    of one answer; and what it takes over from its question."""
    done: dict[str, Any] = {
        "key": row["key"],
        **{name: row[name] for name in _CARRIED if name in row},
        "negatives": [],
        "types": [],
        "refused": [],
        "error_code": None,
        "error": "",
        "input_tokens": int(row.get("num_input_tokens") or 0),
        "output_tokens": int(row.get("num_generated_tokens") or 0),
    }
    if row.get(_ERROR_COLUMN):
        return done | {"error_code": "E_LLM", "error": str(row[_ERROR_COLUMN])[:_ERROR_CHARS]}
    try:
        reply = parse_reply(
            str(row["generated_text"]),
            key=row["key"],
            positive=row["text"],
            language=row["language"],
            config=llm,
        )
    except ReplyError as fault:
        return done | {"refused": [fault.code], "error_code": "E_LLM_REPLY", "error": str(fault)}
    return done | {
        "negatives": list(reply.candidates.texts),
        "types": list(reply.candidates.types),
        "refused": sorted(reply.refused.elements()),
    }
