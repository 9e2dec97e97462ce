"""Take secrets out of text that leaves the process: messages, logs, rows, reports."""

import os
import re

REDACTED = "[redacted]"

_SECRET_ENV = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID")
_MIN_SECRET_CHARS = 8
"""Shorter values of the environment ("test") are ordinary words: replacing them would garble messages."""

_PATTERNS = (
    re.compile(r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{8,}"),
    re.compile(
        r"(?i)(?<=[?&;\s])(?:x-amz-[a-z-]+|x-goog-[a-z-]+|signature|sig|sv|token|awsaccesskeyid)=[^\s&\"'<>]+"
    ),
    re.compile(r"(?i)(?<=authorization: )[^\r\n]+"),
    re.compile(r"(?i)\b(?:aws_secret_access_key|aws_session_token|secret|password)\s*[=:]\s*[^\s&,;]+"),
    re.compile(r"(?<=://)[^/\s@]+:[^/\s@]*(?=@)"),
)


def redact(text: str) -> str:
    """`text` without access keys, signatures, signed-URL parameters, `user:password@`, or secrets of the
    environment.
    """
    for name in _SECRET_ENV:
        secret = os.environ.get(name, "")
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, REDACTED)
    for pattern in _PATTERNS:
        text = pattern.sub(REDACTED, text)
    return text
