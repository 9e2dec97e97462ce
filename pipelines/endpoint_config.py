"""A chat endpoint that answers questions about pictures: where it is, how patient we are, what it may cost."""

import ipaddress
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from ovsops.errors import ConfigError, RowError

ReplyFormat = Literal["json_schema", "json_object", "text"]

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_KEY = re.compile(r"[\x21-\x7e]+")


class EndpointError(RowError):
    """A question that got no usable answer. Codes:

    E_ENDPOINT_REPLY        an answer of another shape, twice
    E_ENDPOINT_BUSY         429 or 5xx to the last attempt
    E_ENDPOINT_TIMEOUT      no whole answer in time
    E_ENDPOINT_UNREACHABLE  no connection, or closed early; also questions not sent because all before them failed
    E_ENDPOINT_DENIED       401 or 403; further questions are not sent
    E_ENDPOINT_STATUS       another answer than 200 that asking again will not change; redirects
    E_ENDPOINT_BUDGET       the cost that was allowed is spent
    """


BUDGET_CODE = "E_ENDPOINT_BUDGET"
RETRYABLE_CODES = frozenset({"E_ENDPOINT_BUSY", "E_ENDPOINT_TIMEOUT", "E_ENDPOINT_UNREACHABLE"})
"""What a crowded or absent server did: another run may go better."""


@dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """An OpenAI-compatible `chat/completions` endpoint: vLLM, SGLang, or a vendor's."""

    url: str
    """Base URL, such as `http://127.0.0.1:8000/v1`; no user, password, query or fragment."""
    model: str
    """Name of the model as the endpoint knows it; captions say `vlm:<model>`."""
    key_from_env: str | None = None
    """Name of the environment variable that holds the key; none is sent without it."""
    allow_key_over_http: bool = False
    """Whether the key may go unencrypted to another host than this one."""
    reply_format: ReplyFormat = "json_schema"
    """How the endpoint is told the grammar of its answer; `text` for one that knows no `response_format`."""
    temperature: float | None = 0.0
    """Not sent where it is None."""
    seed: int | None = None
    max_reply_tokens: int = 400
    """Tokens of an answer at most, sent as `length_field`."""
    length_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: int = 8
    """Questions of one block that wait for their answer at a time; workers x blocks_at_once blocks are asked about."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    """Longest silence of the server."""
    request_timeout_s: float = 120.0
    """Longest time of one request, however it drips."""
    deadline_s: float = 300.0
    """Longest time of one question, all its requests and waits together."""
    max_attempts: int = 5
    """Requests of one question at most, but for the one that asks again after an answer of another shape."""
    first_wait_s: float = 0.5
    """Wait before the second request, drawn between half of it and all; doubled with every further one."""
    longest_wait_s: float = 30.0
    """No wait is longer, whatever `Retry-After` says."""
    give_up_after: int = 16
    """When this many questions in a row got no answer at all, the rest of the batch is not sent."""
    max_reply_bytes: int = 1_048_576
    """A longer reply is not read to its end."""
    input_price: float = 0.0
    """Money for a million input tokens."""
    output_price: float = 0.0
    """Money for a million output tokens."""
    max_cost: float | None = None
    """Money that one worker may spend; once it is spent, no request is sent. Needs prices."""

    def __post_init__(self) -> None:
        parts = _split_url(self.url)
        if not self.model.strip() or not self.model.isprintable() or len(self.model) > 200:
            raise ConfigError("endpoint.model is empty, too long or not printable; give the name of a model")
        if self.key_from_env is not None:
            if not _ENV_NAME.fullmatch(self.key_from_env):
                raise ConfigError(
                    "endpoint.key_from_env is no name of an environment variable; give the NAME of the variable that"
                    " holds the key, never the key"
                )
            if (
                parts.scheme == "http"
                and not self.allow_key_over_http
                and not _is_this_host(parts.hostname or "")
            ):
                raise ConfigError(
                    f"endpoint.url {self.url}: the key would travel unencrypted; use https, or set"
                    " allow_key_over_http if the network is yours"
                )
        for name in (
            "connect_timeout_s",
            "read_timeout_s",
            "request_timeout_s",
            "deadline_s",
            "first_wait_s",
        ):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"endpoint.{name} is {getattr(self, name)}; seconds over 0 are wanted")
        if not self.first_wait_s <= self.longest_wait_s < math.inf:
            raise ConfigError(
                f"endpoint.longest_wait_s is {self.longest_wait_s}; at least first_wait_s is wanted"
            )
        for name in ("concurrency", "max_attempts", "give_up_after", "max_reply_tokens", "max_reply_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"endpoint.{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("input_price", "output_price", "temperature", "max_cost"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError(f"endpoint.{name} is {value}; it must be 0 or more")
        if self.max_cost is not None and not (self.input_price or self.output_price):
            raise ConfigError(
                "endpoint.max_cost needs input_price or output_price: without them nothing costs"
            )

    @property
    def source(self) -> str:
        """Who is named as the source of an answer."""
        return f"vlm:{self.model}"

    @property
    def completions_url(self) -> str:
        """Where questions are sent."""
        base = self.url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    def cost(self, input_tokens: int, output_tokens: int) -> float:
        """Money, by the prices."""
        return (input_tokens * self.input_price + output_tokens * self.output_price) / 1e6

    def key(self) -> str | None:
        """The key, read now. `ConfigError` where the variable is missing or holds no key; never shows its value."""
        if self.key_from_env is None:
            return None
        key = os.environ.get(self.key_from_env, "").strip()
        if not key:
            raise ConfigError(
                f"endpoint: the environment variable {self.key_from_env} is not set; it holds the key"
            )
        if not _KEY.fullmatch(key):
            raise ConfigError(
                f"endpoint: the environment variable {self.key_from_env} holds spaces, line breaks or characters"
                " beyond ASCII, so it is no key"
            )
        return key


ENDPOINT_SETTINGS = (
    "url",
    "key_from_env",
    "allow_key_over_http",
    "length_field",
    "concurrency",
    "connect_timeout_s",
    "read_timeout_s",
    "request_timeout_s",
    "deadline_s",
    "max_attempts",
    "first_wait_s",
    "longest_wait_s",
    "give_up_after",
    "max_reply_bytes",
    "input_price",
    "output_price",
    "max_cost",
)
"""Fields that say how the model is reached, not what it says: they may change between starts of one output."""


@dataclass(kw_only=True)
class EndpointCounts:
    """What became of the questions, and what they cost."""

    questions: int = 0
    answered: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By code; questions = answered + failed."""
    requests: int = 0
    """Sent, repeated ones too."""
    retries: int = 0
    """Sent again after 429, 5xx, time-outs and lost connections."""
    reasked: int = 0
    """Asked again after an answer of another shape."""
    input_tokens: int = 0
    output_tokens: int = 0
    replies_without_usage: int = 0
    """Replies that did not tell their tokens: the cost is at least what is counted."""

    def cost(self, config: EndpointConfig) -> float:
        """Money, by the prices of the config."""
        return config.cost(self.input_tokens, self.output_tokens)

    def add(self, other: "EndpointCounts") -> None:
        """Count what the other counted, too."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))

    def to_plain(self) -> dict[str, Any]:
        """Plain data, codes sorted."""
        return asdict(self) | {"failed": dict(sorted(self.failed.items()))}

    def to_json(self) -> str:
        """What travels with a part."""
        return json.dumps(self.to_plain(), sort_keys=True)

    @classmethod
    def sum_of(cls, texts: Iterable[str]) -> "EndpointCounts":
        """All of what `to_json` wrote, together."""
        total = cls()
        for text in texts:
            plain = json.loads(text)
            total.add(cls(**plain | {"failed": Counter(plain["failed"])}))
        return total


def _split_url(url: str) -> SplitResult:
    parts = SplitResult("", "", "", "", "")
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_whole = False
    if not is_whole or not url.isprintable() or any(mark in url for mark in " ?#@\\"):
        # Not repeated in the message: a password may stand in it.
        raise ConfigError(
            "endpoint.url must be http(s)://host[:port]/path without user, password, query and fragment; a key goes"
            " into an environment variable (key_from_env)"
        )
    return parts


def _is_this_host(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
