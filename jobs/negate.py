"""`ovsops negate`: ten negatives for each caption of a JSON Lines file, without images.

The file is read twice: once to learn what its captions say, once to write. Memory does not grow with it.
"""

import gzip
import json
import os
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from ovsops.errors import ConfigError, StorageError
from ovsops.negatives.captions import accept
from ovsops.negatives.config import REASONS, NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.sampler import NegativeSampler, Refusal, fit_sampler

MAX_LINE_BYTES = 8 * 1024 * 1024
"""Longer lines are passed over, with a reason."""
LINE_REASONS: dict[str, str] = {
    "R_INVALID_JSON": "the line is no JSON (UTF-8, finite numbers, not too deep)",
    "R_NOT_AN_OBJECT": "the line is JSON, but no object",
    "R_LINE_TOO_LONG": f"the line has more than {MAX_LINE_BYTES} bytes",
    **{str(reason): meaning for reason, meaning in REASONS.items()},
}
"""Every reason that a line of the output may name."""
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(kw_only=True)
class NegateSummary:
    """What became of the lines."""

    level: str
    seed: int
    num_lines: int = 0
    """Lines that hold anything; as many were written."""
    num_blank: int = 0
    """Empty lines; not written."""
    num_made: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """One line for a person."""
        refused = ", ".join(f"{reason} {count}" for reason, count in sorted(self.reasons.items()))
        types = ", ".join(f"{kind} {count}" for kind, count in self.types.most_common(6))
        return (
            f"{self.num_lines} lines: {self.num_made} with ten {self.level} negatives (seed {self.seed}), "
            f"{sum(self.reasons.values())} without{': ' + refused if refused else ''}; {self.num_blank} blank"
            f"{'; changed: ' + types if types else ''}"
        )


def negate_file(source: Path, target: Path, config: NegativeConfig) -> NegateSummary:
    """Write `source` with `positive`, `negatives` and `types`, or with null and a `reason`; `target` appears whole or
    not at all.

    `positive` is the text with its spaces and marks set straight, as the negatives have them. Raises `StorageError`
    where a file cannot be read or written, `ConfigError` where both are the same or one is no regular file.
    """
    _check_regular(source, "is to be read twice, which a pipe or a device cannot: write it into a file first")
    _check_regular(target, "cannot become the output, which takes its place whole: name another file")
    if target.exists() and source.exists() and os.path.samefile(source, target):
        raise ConfigError(f"{source} is to be read twice and cannot be the output, too: name another file")
    sampler = fit_sampler(_sample(source, config), config)
    summary = NegateSummary(level=config.level, seed=config.seed)
    with _written_whole(target) as file:
        for number, line in _lines(source):
            if line is not None and not line.strip():
                summary.num_blank += 1
                continue
            summary.num_lines += 1
            file.write(_answered(line, number, sampler, summary))
    return summary


def _check_regular(path: Path, why: str) -> None:
    """ConfigError for a path of a pipe, a device, a socket or a folder. One where nothing lies is not looked at."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # opening it says why
    if not stat.S_ISREG(mode):
        kinds = {
            stat.S_IFIFO: "a pipe",
            stat.S_IFDIR: "a folder",
            stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a device",
            stat.S_IFSOCK: "a socket",
        }
        raise ConfigError(f"{path} is {kinds.get(stat.S_IFMT(mode), 'no regular file')}: it {why}")


def _sample(source: Path, config: NegativeConfig) -> CorpusSample:
    """Captions of the file that can be used."""
    sample = CorpusSample()
    for number, line in _lines(source):
        row = _parsed(line)
        if isinstance(row, dict):
            caption, language = accept(row.get("text"), row.get("language"), max_chars=config.max_chars)
            if caption is not None:
                sample.add(caption, language, str(number))  # type: ignore[arg-type]
    return sample


def _answered(line: bytes | None, number: int, sampler: NegativeSampler, summary: NegateSummary) -> bytes:
    """The line to write for one line read."""
    row = _parsed(line)
    if isinstance(row, str):
        summary.reasons[row] += 1
        return _encoded({"line": number, "positive": None, "negatives": None, "types": None, "reason": row})
    answer = sampler.negatives_for(row.get("text"), row.get("language"), key=str(number))
    row.pop("reason", None)
    if isinstance(answer, Refusal):
        row.update(positive=None, negatives=None, types=None, reason=answer.reason)
        summary.reasons[answer.reason] += 1
    else:
        row.update(positive=answer.positive, negatives=list(answer.negatives), types=list(answer.types))
        summary.num_made += 1
        summary.types.update(answer.types)
    return _encoded(row)


def _parsed(line: bytes | None) -> dict[str, Any] | str:
    """The object of a line, or the reason why there is none."""
    if line is None:
        return "R_LINE_TOO_LONG"
    try:
        row = json.loads(line, parse_constant=_refuse_constant)
        json.dumps(row, allow_nan=False)
    except (ValueError, RecursionError):
        return "R_INVALID_JSON"
    return row if isinstance(row, dict) else "R_NOT_AN_OBJECT"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


def _encoded(row: dict[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # unpaired surrogates of \ud800 escapes: they stay escapes
        return json.dumps(row).encode() + b"\n"


def _lines(source: Path) -> Iterator[tuple[int, bytes | None]]:
    """Number, from 1, and bytes of every line; None for one that is too long."""
    try:
        with source.open("rb") as probe:
            is_gzip = probe.read(2) == _GZIP_MAGIC
        with gzip.open(source, "rb") if is_gzip else source.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
                    while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                    yield number, None
                else:
                    yield number, line
    except (OSError, EOFError, gzip.zlib.error) as error:  # type: ignore[attr-defined]
        raise StorageError(
            f"{source}: cannot be read: {error}; check the path, and that the file is whole"
        ) from error


@contextmanager
def _written_whole(target: Path) -> Iterator[IO[bytes]]:
    """A file beside the target that takes its place when all is written."""
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:80]}-", suffix=".tmp")
        with os.fdopen(handle, "wb") as raw:
            if target.suffix == ".gz":
                with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
                    yield file  # type: ignore[misc]
            else:
                yield raw
            raw.flush()
            os.fsync(raw.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise StorageError(f"{target}: cannot be written: {error}; check space and rights") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
