"""Log handlers: one line a record, text or JSON, control characters escaped, secrets taken out."""

import json
import logging
import sys
import time
from typing import Literal

from pipelines.redact import redact

LogFormat = Literal["text", "json"]


def escape_controls(text: str) -> str:
    """Control characters and direction overrides as `\\xNN` / `\\uNNNN`: names in archives may hold any."""
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)


class TextFormatter(logging.Formatter):
    """`12:30:59 warning pipelines.label: message`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        line = f"{clock} {record.levelname.lower()} {record.name}: {_message(record)}"
        return f"{line}\n{redact(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Fields time (Unix seconds), level, logger, message, and error where there is one."""
        fields = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            fields["error"] = redact(self.formatException(record.exc_info))
        return json.dumps(fields, ensure_ascii=False)


def _message(record: logging.LogRecord) -> str:
    return escape_controls(redact(record.getMessage()))


def configure_logging(*, log_format: LogFormat, verbose: bool) -> None:
    """Send our packages' records to standard error. Warnings of others pass too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for package in ("ovsops", "pipelines", "jobs"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
