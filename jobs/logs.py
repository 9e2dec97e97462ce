"""Log handlers: one line a record, text or JSON, control characters escaped, secrets taken out."""

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from typing import Any, Literal

from pipelines.redact import redact

LogFormat = Literal["text", "json"]

_RAY_HANDLER = "PlainRayHandler"
"""Class of the handlers of `ray` and `ray.data` that write to standard error (Ray 2.60, `ray._private.log`)."""


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
        """Fields time (Unix seconds), level, logger, message; error where there is one; and those of `facts`."""
        fields = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        if record.exc_info:
            fields["error"] = redact(self.formatException(record.exc_info))
        told = {name: _plain(value) for name, value in getattr(record, "facts", {}).items()}
        return json.dumps(told | fields, ensure_ascii=False, allow_nan=False)


def facts(event: str, **more: Any) -> dict[str, Any]:
    """`extra=` of a record: what its JSON line says beside the message, `event` first."""
    return {"facts": {"event": event, **more}}


def _plain(value: Any) -> Any:
    """Without secrets, control characters, and numbers that JSON does not have."""
    if isinstance(value, str):
        return escape_controls(redact(value))
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _message(record: logging.LogRecord) -> str:
    return escape_controls(redact(record.getMessage()))


def configure_logging(*, log_format: LogFormat, verbose: bool) -> None:
    """Send our packages' records to standard error. Warnings of others pass too; in JSON those of Python itself."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for package in ("ovsops", "pipelines", "jobs"):
        logging.getLogger(package).setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.captureWarnings(log_format == "json")


def is_json() -> bool:
    """Whether standard error gets JSON objects and nothing else."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def format_ray_records() -> None:
    """Let Ray's own handlers write as ours do, where lines are JSON. To be called before Ray is started."""
    if not is_json():
        return
    for name, logger in logging.root.manager.loggerDict.items():
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "ray":
            for handler in logger.handlers:
                if type(handler).__name__ == _RAY_HANDLER:
                    handler.setFormatter(JsonFormatter())
