"""Exit codes, and the one place where an error becomes one."""

import signal
import threading
from collections.abc import Sequence
from enum import IntEnum

from ovsops.errors import (
    CheckpointError,
    ConfigError,
    NoRunError,
    OutputError,
    OvsopsError,
    RowError,
    StorageError,
    TrainingError,
    WorkerError,
)


class ExitCode(IntEnum):
    """What a shell or a scheduler gets to know."""

    DONE = 0
    INTERNAL = 1
    """A fault of ovsops: please report it."""
    USAGE = 2
    """The command line or the recipe: also a path in them that holds no run, or that cannot become an output."""
    OVER_LIMITS = 3
    """Finished, but over limits: more failed than the recipe allows, or two runs differ by more than a diff does."""
    PREFLIGHT = 4
    """Something that the run needs is not there: device, weights, licence, storage."""
    OUTPUT = 5
    """The output is locked, or was made with another recipe."""
    AUDIT = 6
    """An audit failed."""
    INTERRUPTED = 130


class PreflightError(OvsopsError):
    """Something that a run needs is not there; the message says how to get it."""


_BY_ERROR: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
    (ConfigError, ExitCode.USAGE),
    (WorkerError, ExitCode.INTERNAL),
    (TrainingError, ExitCode.USAGE),
    (PreflightError, ExitCode.PREFLIGHT),
    (CheckpointError, ExitCode.PREFLIGHT),
    (StorageError, ExitCode.PREFLIGHT),
    (NoRunError, ExitCode.USAGE),
    (OutputError, ExitCode.OUTPUT),
    (RowError, ExitCode.INTERNAL),
)


def exit_code_of(error: BaseException) -> ExitCode:
    """The code of an error that ended a command. Errors that nobody planned are internal ones."""
    for kind, code in _BY_ERROR:
        if isinstance(error, kind):
            return code
    return ExitCode.INTERNAL


def is_expected(error: BaseException) -> bool:
    """Whether the message says all that a user needs (no traceback)."""
    return isinstance(error, OvsopsError | KeyboardInterrupt)


_GOING_ON = frozenset({"run", "retry", "nightly"})
"""Verbs that find what they have done and go on behind it."""
_ANEW: dict[str, str] = {
    "negate": "the output was not written; the same command starts anew",
    "audit": "the same command starts anew, with a new or empty folder for --out",
}


def after_interruption(words: Sequence[str]) -> str:
    """What the same command would do, of the words of the one that was interrupted."""
    verb = next((word for word in words if not word.startswith("-")), "")
    if verb in _GOING_ON:
        return "run the same command again to go on"
    return _ANEW.get(verb, "there is nothing to go on with; the same command starts anew")


def stop_on_sigterm() -> None:
    """SIGTERM ends a run as Ctrl-C does: with a summary and code 130. Once; the summary is not interrupted again."""

    def interrupt(signum: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
