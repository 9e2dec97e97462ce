"""Take secrets out of text that leaves the process: messages, logs, rows, reports."""

import os
import re
from collections.abc import Iterator
from functools import lru_cache

REDACTED = "[redacted]"

_SECRET_ENV = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_MIN_SECRET_CHARS = 8
"""Shorter values of the environment ("test") are ordinary words: replacing them would garble messages."""

_SECRET_NAME = re.compile(r"(?:^|_)(?:API_?KEY|KEY|TOKEN|SECRET|PASSWORD|PASSWD)$", re.IGNORECASE)
"""Other variables that hold a secret by their name: HF_TOKEN, OPENAI_API_KEY, the one that an endpoint names."""
_SECRET_VALUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])\S{12,}")
"""What such a variable must hold to count: ordinary words have no digits."""

_PATTERNS = (
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{8,}"),
    re.compile(r"(?<![A-Za-z0-9])(?:sk-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,})"),
    re.compile(
        r"(?i)(?<=[?&;\s])(?:x-amz-[a-z-]+|x-goog-[a-z-]+|signature|sig|sv|token|awsaccesskeyid)=[^\s&\"'<>]+"
    ),
    re.compile(r"(?i)(?<=authorization: )[^\r\n]+"),
    re.compile(r"(?i)\b(?:aws_secret_access_key|aws_session_token)\s*[=:]\s*[^\s&,;]+"),
    re.compile(r"(?i)\b(?:secret|password)(?:=|\s*[=:]\s*(?=[^\s&,;]*[0-9]))[^\s&,;]+"),
    re.compile(r"(?<=://)[^/\s@]+:[^/\s@]*(?=@)"),
)


def redact(text: str) -> str:
    """`text` without access keys, signatures, signed-URL parameters, `user:password@`, or secrets of the
    environment.
    """
    for secret in _secrets_of_environment():
        text = text.replace(secret, REDACTED)
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    return text


def _secrets_of_environment() -> Iterator[str]:
    for name in _secret_names(len(os.environ)):
        value = os.environ.get(name, "")
        if name in _SECRET_ENV:
            if len(value) >= _MIN_SECRET_CHARS:
                yield value
        elif _SECRET_VALUE.fullmatch(value):
            yield value


@lru_cache(maxsize=2)
def _secret_names(num_variables: int) -> tuple[str, ...]:
    """Variables that may hold one, looked for again when there are more or fewer variables: rows call this."""
    return (
        *_SECRET_ENV,
        *(name for name in os.environ if _SECRET_NAME.search(name) and name not in _SECRET_ENV),
    )
