"""What is told on standard error beside log lines: text for people, or one JSON object a line."""

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console, RenderableType

from jobs.logs import facts, is_json

logger = logging.getLogger(__name__)


def tell(line: str, event: str = "told", *, console: Console | None = None) -> None:
    """A line for the user on standard error, or on another console; a record of the log where lines are JSON."""
    if is_json():
        logger.info("%s", line, extra=facts(event))
    else:
        (console or Console(stderr=True)).print(line, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Text for the user on standard output, at once; a JSON line on standard error where lines are JSON."""
    if is_json():
        tell(text.strip("\n"), "step")
    else:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def tell_summary(
    console: Console, summary: Mapping[str, Any], table: RenderableType, steps: Iterable[str] = ()
) -> None:
    """The end of a job: its table and what to do next; in JSON the content of `summary.json` instead of the table."""
    if is_json():
        logger.info("done: %s", summary.get("state", ""), extra=facts("summary", summary=summary))
    else:
        console.print(table)
    for step in steps:
        tell(step, "next", console=console)


def tell_error(text: str, *, code: int, what: str) -> None:
    """How a command ended that did not end well: `what` is error, internal error or interrupted."""
    if is_json():
        logger.error("%s", text, extra=facts("error", exit_code=code, what=what))
    else:
        sys.stderr.write(f"{what}: {text}\n")
