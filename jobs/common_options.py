"""Options that every verb takes, at any place of the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jobs.logs import configure_logging


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """What they said; that of the log is already done."""

    debug: bool = False
    """Show where an error comes from."""
    metrics_file: Path | None = None
    """Text file that gets the command's metrics."""


def take_common_options(words: Sequence[str]) -> tuple[list[str], CommonOptions]:
    """Set up logging from them; the other words, and the rest of them. What is not whole stays among the words."""
    log_format: Literal["text", "json"] = "text"
    verbose = debug = False
    metrics_file: Path | None = None
    rest: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        name, _, value = word.partition("=")
        if word in ("-v", "--verbose"):
            verbose = True
        elif word == "--debug":
            debug = verbose = True
        elif word in ("--log-format=json", "--log-format=text"):
            log_format = "json" if value == "json" else "text"
        elif word == "--log-format" and left[:1] in (["json"], ["text"]):
            log_format = "json" if left.pop(0) == "json" else "text"
        elif name == "--metrics-file" and value:
            metrics_file = Path(value)
        elif word == "--metrics-file" and left and not left[0].startswith("-"):
            metrics_file = Path(left.pop(0))
        else:
            rest.append(word)
    configure_logging(log_format=log_format, verbose=verbose)
    return rest, CommonOptions(debug=debug, metrics_file=metrics_file)
