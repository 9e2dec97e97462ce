"""Negatives by a language model on the cluster's own GPUs: Ray Data's batch stage around vLLM.

    stage = llm_stage(VllmConfig(model="..."), LlmConfig())   # ConfigError where vLLM is missing
    dataset = stage(dataset)                  # rows in: key, text, language, known; rows out: see `reply_row`

This file knows Ray, as it hands Ray's own operator on. vLLM is no dependency of this package: it wants its own torch.
"""

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ovsops.errors import ConfigError
from ovsops.negatives.captions import accept
from ovsops.negatives.llm_replies import ReplyError, parse_reply
from ovsops.negatives.llm_requests import LlmConfig, negatives_request

if TYPE_CHECKING:
    from ray.data import Dataset
    from ray.data.llm import vLLMEngineProcessorConfig

_ERROR_COLUMN = "__inference_error__"
"""Where Ray 2.60 puts why a row failed, with `should_continue_on_error`."""


@dataclass(frozen=True, kw_only=True)
class VllmConfig:
    """The engine. Field names are ours; `processor_config` gives Ray's."""

    model: str
    """Folder or hub repository of a chat model."""
    revision: str | None = None
    """Commit of a hub repository, 40 hex digits."""
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
            raise ConfigError("llm.model is empty; give a folder or a hub repository of a chat model")
        for name in ("replicas", "gpus_per_replica", "batch_size", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"llm.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.max_model_len <= self.max_reply_tokens:
            raise ConfigError(
                f"llm.max_model_len is {self.max_model_len}: no room for a question beside {self.max_reply_tokens}"
                " tokens of answer (max_reply_tokens)"
            )
        for name in ("temperature", "input_price", "output_price"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"llm.{name} is {getattr(self, name)}; it must be 0 or more")

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Money, by the prices."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6


def check_vllm() -> None:
    """`ConfigError` where vLLM cannot be imported here: a run finds that out before it reads anything."""
    if importlib.util.find_spec("vllm") is None:
        raise ConfigError(
            "llm: vLLM is not installed; install it where the GPUs are (`pip install 'ray[llm]'` brings the version"
            " that Ray was tested with), or give `endpoint` the URL of a server that runs the model"
        )


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
    )


def llm_stage(config: VllmConfig, llm: LlmConfig) -> "Callable[[Dataset], Dataset]":
    """The stage; `ConfigError` without vLLM. Starts Ray where none runs."""
    check_vllm()
    from ray.data.llm import build_processor

    stage: Callable[[Dataset], Dataset] = build_processor(
        processor_config(config),
        preprocess=lambda row: request_row(row, config, llm),
        postprocess=lambda row: reply_row(row, llm),
    )
    return stage


def request_row(row: Mapping[str, Any], config: VllmConfig, llm: LlmConfig) -> dict[str, Any]:
    """A row of `key`, `text`, `language` and `known` with its question. `captions.accept` must take the text."""
    text, reason = accept(row["text"], row["language"], max_chars=llm.max_chars)
    if text is None:
        raise ConfigError(
            f"llm: row {row['key']} has no caption to ask about ({reason}); leave such rows out first"
        )
    request = negatives_request(text, row["language"], llm, known=tuple(row.get("known") or ()))
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
    """`key`, `negatives`, `types`, `refused` (codes of texts), `error_code` and the tokens of one answer."""
    done: dict[str, Any] = {
        "key": row["key"],
        "negatives": [],
        "types": [],
        "refused": [],
        "error_code": None,
        "input_tokens": int(row.get("num_input_tokens") or 0),
        "output_tokens": int(row.get("num_generated_tokens") or 0),
    }
    if row.get(_ERROR_COLUMN):
        return done | {"error_code": "E_LLM"}
    try:
        reply = parse_reply(
            str(row["generated_text"]),
            key=row["key"],
            positive=row["text"],
            language=row["language"],
            config=llm,
        )
    except ReplyError as fault:
        return done | {"error_code": fault.code}
    return done | {
        "negatives": list(reply.candidates.texts),
        "types": list(reply.candidates.types),
        "refused": sorted(reply.refused.elements()),
    }
