"""Questions about pictures to a chat endpoint: bounded in time, tries, size and money, and never a question lost.

    answers = Endpoint(config).ask_all([Question(dialogue=..., jpeg=..., parse=parse_answer), ...])

Each question gets its answer or an `EndpointError`, in order. Retried are 408, 425, 429, 5xx, time-outs and lost
connections. Redirects are refused, as they would carry the key elsewhere. The key stands in one header and nowhere
else: what the server says is cleaned and searched for it before it enters a message.
"""

import asyncio
import base64
import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import aiohttp
import pydantic

from ovsops.errors import RowError
from ovsops.regions.caption_text import clean_caption
from ovsops.regions.vlm_dialogue import REPLY_CODE, reask
from ovsops.text.chat import Dialogue
from pipelines.endpoint_config import (
    BUDGET_CODE,
    RETRYABLE_CODES,
    EndpointConfig,
    EndpointCounts,
    EndpointError,
)
from pipelines.redact import REDACTED, redact

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

_RETRYABLE_STATUS = frozenset({408, 425, 429})
_HOPELESS_STATUS = frozenset({501, 505})
_DENIED_STATUS = frozenset({401, 403})
_CHUNK_BYTES = 65_536
_MAX_SAID_CHARS = 200
_MAX_ECHO_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class Question(Generic[Answer]):
    """One thing to ask, about one picture or about words alone."""

    dialogue: Dialogue
    jpeg: bytes | None
    """None: no picture is sent."""
    parse: Callable[[str], Answer]
    """Reads the model's words; raises `RowError` for words of another shape."""


class _Again(Exception):  # noqa: N818  a signal between two functions of this file
    """The request failed in a way that asking again may mend."""

    def __init__(self, code: str, reason: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.code, self.retry_after_s = code, retry_after_s


class _Message(pydantic.BaseModel):
    content: str


class _Choice(pydantic.BaseModel):
    message: _Message


class _Completion(pydantic.BaseModel):
    """The part of a reply that is used."""

    choices: list[_Choice] = pydantic.Field(min_length=1)
    usage: Any = None


class Endpoint:
    """A client of one endpoint, for one worker. Keeps counts over all its batches."""

    def __init__(self, config: EndpointConfig) -> None:
        self.config = config
        self.counts = EndpointCounts()
        """Of the batches that are done."""
        self._running: list[EndpointCounts] = []
        self._lock = threading.Lock()
        config.key()  # a missing variable is found now, not with the first picture

    def spent(self) -> float:
        """Money so far, of batches that still run, too."""
        with self._lock:
            return sum(counts.cost(self.config) for counts in (self.counts, *self._running))

    def ask_all(
        self, questions: Sequence[Question[Answer]], counts: EndpointCounts | None = None
    ) -> list[Answer | EndpointError]:
        """An answer, or why there is none, for each question; what became of them is added to `counts`, too.

        Blocks; callers may have an event loop of their own, and several threads may ask at a time.
        """
        if not questions:
            return []
        clock = time.perf_counter()
        own = EndpointCounts()
        with self._lock:
            self._running.append(own)
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="endpoint") as thread:
                batch = _Batch(self.config, own, self.spent)
                answers = thread.submit(asyncio.run, batch.ask_all(questions)).result()
        finally:
            with self._lock:
                self._running = [each for each in self._running if each is not own]
                self.counts.add(own)
        if counts is not None:
            counts.add(own)
        num_failed = sum(isinstance(answer, EndpointError) for answer in answers)
        logger.log(
            logging.WARNING if num_failed else logging.DEBUG,
            "endpoint %s: %d questions, %d without an answer, %.1f s",
            self.config.model,
            len(questions),
            num_failed,
            time.perf_counter() - clock,
        )
        return answers


class _Batch:
    """One call of `ask_all`, inside its event loop."""

    def __init__(self, config: EndpointConfig, counts: EndpointCounts, spent: Callable[[], float]) -> None:
        self.config, self.counts, self._spent = config, counts, spent
        self._key = config.key()
        self._failures_in_a_row = 0
        self._stopped: EndpointError | None = None

    async def ask_all(self, questions: Sequence[Question[Answer]]) -> list[Answer | EndpointError]:
        gate = asyncio.Semaphore(self.config.concurrency)
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        async with (
            aiohttp.ClientSession(
                headers=headers,
                connector=aiohttp.TCPConnector(limit=self.config.concurrency),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a small body must not grow beyond the cap
                trust_env=False,
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            tasks: list[asyncio.Task[Any]] = [
                group.create_task(self._gated(session, gate, question)) for question in questions
            ]
        return [task.result() for task in tasks]

    async def _gated(
        self, session: aiohttp.ClientSession, gate: asyncio.Semaphore, question: Question[Answer]
    ) -> Answer | EndpointError:
        async with gate:
            self.counts.questions += 1
            try:
                answer = await self._ask(session, question)
            except EndpointError as error:
                self.counts.failed[error.code] += 1
                self._note_failure(error)
                return error
            self.counts.answered += 1
            self._failures_in_a_row = 0
            return answer

    def _note_failure(self, error: EndpointError) -> None:
        """Stop asking an endpoint that is not there, or that does not want us."""
        self._failures_in_a_row = self._failures_in_a_row + 1 if error.code in RETRYABLE_CODES else 0
        if self._stopped is not None:
            return
        if error.code == "E_ENDPOINT_DENIED":
            self._stopped = EndpointError(error.code, f"not sent, as the one before was refused: {error}")
        elif self._failures_in_a_row >= self.config.give_up_after:
            self._stopped = EndpointError(
                "E_ENDPOINT_UNREACHABLE",
                f"not sent, as {self._failures_in_a_row} questions in a row got no answer, the last one: {error}",
            )

    async def _ask(self, session: aiohttp.ClientSession, question: Question[Answer]) -> Answer:
        deadline = time.monotonic() + self.config.deadline_s
        messages = _messages(question)
        attempt, is_second = 0, False
        while True:
            self._check_open()
            left = deadline - time.monotonic()
            if left <= 0:
                raise EndpointError(
                    "E_ENDPOINT_TIMEOUT", f"the {self.config.deadline_s:g} s for a question are over"
                )
            try:
                words = await self._post(session, self._body(messages, question.dialogue), left)
                return question.parse(words)
            except _Again as again:
                attempt += 1
                wait = self._wait(attempt, again.retry_after_s)
                if attempt >= self.config.max_attempts:
                    raise EndpointError(again.code, f"{again} after {attempt} attempts") from None
                if time.monotonic() + wait >= deadline:
                    limit = f"the {self.config.deadline_s:g} s for a question are over"
                    raise EndpointError(again.code, f"{again}; {limit}") from None
                self.counts.retries += 1
                await asyncio.sleep(wait)
            except EndpointError:
                raise
            except RowError as error:
                if is_second:
                    raise EndpointError(REPLY_CODE, f"{self._safe(str(error), 400)}; asked twice") from None
                is_second = True
                self.counts.reasked += 1
                messages = _again_messages(messages, error)

    def _check_open(self) -> None:
        if self._stopped is not None:
            raise self._stopped
        if self.config.max_cost is None:
            return
        spent = self._spent()
        if spent >= self.config.max_cost:
            raise EndpointError(
                BUDGET_CODE,
                f"{spent:.4f} of {self.config.max_cost:g} are spent; raise endpoint.max_cost",
            )

    async def _post(self, session: aiohttp.ClientSession, body: dict[str, Any], left_s: float) -> str:
        """The model's words to one request. `_Again`, `EndpointError`, or `RowError` for a reply of another shape."""
        total = min(self.config.request_timeout_s, left_s)
        timeout = aiohttp.ClientTimeout(
            total=total,
            connect=None,
            sock_connect=self.config.connect_timeout_s,
            sock_read=self.config.read_timeout_s,
        )
        self.counts.requests += 1
        url = self.config.completions_url
        try:
            async with session.post(url, json=body, timeout=timeout, allow_redirects=False) as reply:
                data = await self._read(reply)
                if reply.status != 200:
                    raise self._refusal(reply, data)
        except TimeoutError:
            raise _Again("E_ENDPOINT_TIMEOUT", f"no whole answer in {total:.3g} s, or silence") from None
        except aiohttp.ClientSSLError as error:
            raise EndpointError(
                "E_ENDPOINT_UNREACHABLE",
                f"no safe connection ({type(error).__name__}); check the certificate",
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            # The text of these may hold the request with its headers; the type says enough.
            raise _Again(
                "E_ENDPOINT_UNREACHABLE", f"no connection, or closed early ({type(error).__name__})"
            ) from None
        return self._words(data)

    async def _read(self, reply: aiohttp.ClientResponse) -> bytes | None:
        """The body; None when it is longer than allowed."""
        data = bytearray()
        async for chunk in reply.content.iter_chunked(_CHUNK_BYTES):
            data += chunk
            if len(data) > self.config.max_reply_bytes:
                reply.close()
                return None
        return bytes(data)

    def _refusal(self, reply: aiohttp.ClientResponse, data: bytes | None) -> Exception:
        status = reply.status
        said = self._safe((data or b"")[: 8 * _MAX_SAID_CHARS].decode("utf-8", "replace"), _MAX_SAID_CHARS)
        reason = f"the server answered {status}" + (f": {said!r}" if said else "")
        if status in _RETRYABLE_STATUS or (status >= 500 and status not in _HOPELESS_STATUS):
            return _Again("E_ENDPOINT_BUSY", reason, _retry_after_s(reply.headers.get("Retry-After")))
        if status in _DENIED_STATUS:
            name = self.config.key_from_env
            way_out = f"check the key in {name}" if name else "it wants a key: set key_from_env"
            return EndpointError("E_ENDPOINT_DENIED", f"{reason}; {way_out}")
        if 300 <= status < 400:
            return EndpointError(
                "E_ENDPOINT_STATUS", f"the server redirects ({status}), which is refused; check the URL"
            )
        return EndpointError(
            "E_ENDPOINT_STATUS", f"{reason}; check the URL, the model's name and reply_format"
        )

    def _words(self, data: bytes | None) -> str:
        if data is None:
            raise RowError(REPLY_CODE, f"the reply is longer than {self.config.max_reply_bytes} bytes")
        try:
            completion = _Completion.model_validate_json(data)
        except pydantic.ValidationError as error:
            where = error.errors(include_url=False, include_input=False, include_context=False)[0]
            path = ".".join(map(str, where["loc"])) or "it"
            raise RowError(REPLY_CODE, f"the reply is no chat completion: {path}: {where['type']}") from None
        self._count_tokens(completion.usage)
        words = completion.choices[0].message.content
        return words if self._key is None else words.replace(self._key, REDACTED)  # what is parsed is stored

    def _count_tokens(self, usage: Any) -> None:
        usage = usage if isinstance(usage, dict) else {}
        found = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
        counts = [n for n in found if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 10**9]
        if len(counts) < 2:
            self.counts.replies_without_usage += 1
            return
        self.counts.input_tokens += counts[0]
        self.counts.output_tokens += counts[1]

    def _wait(self, attempt: int, retry_after_s: float | None) -> float:
        longest = min(self.config.longest_wait_s, self.config.first_wait_s * 2.0 ** min(attempt - 1, 30))
        wait = longest * random.uniform(0.5, 1.0)  # spreads workers; nothing depends on it
        return max(wait, min(retry_after_s or 0.0, self.config.longest_wait_s))

    def _safe(self, text: str, max_chars: int) -> str:
        """What may be shown of a server's words."""
        if self._key is not None:
            text = text.replace(self._key, REDACTED)
        return redact(clean_caption(text, max_chars=max_chars).text)

    def _body(self, messages: Sequence[dict[str, Any]], dialogue: Dialogue) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": messages,
            self.config.length_field: self.config.max_reply_tokens,
        }
        if self.config.temperature is not None:
            body["temperature"] = self.config.temperature
        if self.config.seed is not None:
            body["seed"] = self.config.seed
        if self.config.reply_format == "json_schema":
            grammar = {"name": dialogue.schema_name, "strict": True, "schema": dialogue.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": grammar}
        elif self.config.reply_format == "json_object":
            body["response_format"] = {"type": "json_object"}
        return body


def _messages(question: Question[Any]) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": question.dialogue.user}]
    if question.jpeg is not None:
        picture = f"data:image/jpeg;base64,{base64.b64encode(question.jpeg).decode('ascii')}"
        parts.insert(0, {"type": "image_url", "image_url": {"url": picture}})
    return [{"role": "system", "content": question.dialogue.system}, {"role": "user", "content": parts}]


def _again_messages(messages: Sequence[dict[str, Any]], error: RowError) -> list[dict[str, Any]]:
    """The question again with what was wrong; at temperature 0 the same question gets the same answer."""
    system, user = messages
    told = {"type": "text", "text": reask(error)[:_MAX_ECHO_CHARS]}
    return [system, {**user, "content": [*user["content"], told]}]


def _retry_after_s(value: str | None) -> float | None:
    """Seconds of a `Retry-After`: a number, or a date. None for what is neither."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value) if len(value) < 12 else None
    try:
        at = email.utils.parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, at.timestamp() - time.time())
