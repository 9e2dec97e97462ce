"""Patterns of shard names: brace ranges `{000..123}`, choices `{a,b}`, and globs, as shells read them."""

import re
from collections.abc import Iterator
from itertools import product

from ovsops.errors import ConfigError

MAX_EXPANSIONS = 10_000_000
_MAGIC = re.compile(r"[*?\[{]")
_BRACE = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"^(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?$")


def is_glob(pattern: str) -> bool:
    """Whether `*`, `?` or `[` stands in it."""
    return re.search(r"[*?\[]", pattern) is not None


def fixed_prefix(pattern: str) -> str:
    """The text before the first `*`, `?`, `[` or `{`."""
    match = _MAGIC.search(pattern)
    return pattern[: match.start()] if match else pattern


def expand_braces(pattern: str) -> list[str]:
    """All names that the braces stand for, in order. A number keeps the width of the range's ends
    (`{08..11}`).

    Braces do not nest; `{x}` without comma or range is literal, as in a shell.
    """
    pieces: list[list[str]] = []
    count, end = 1, 0
    for match in _BRACE.finditer(pattern):
        choices = _choices(match[1], pattern)
        count *= len(choices)
        if count > MAX_EXPANSIONS:
            raise ConfigError(
                f"input {pattern}: the braces stand for over {MAX_EXPANSIONS:,} names; split the pattern"
            )
        pieces += [[pattern[end : match.start()]], choices]
        end = match.end()
    rest = pattern[end:]
    literal = "".join("".join(piece) for piece in pieces[::2]) + rest
    if "{" in literal or "}" in literal:
        raise ConfigError(f"input {pattern}: braces do not close or are nested; write them side by side")
    return ["".join(parts) for parts in product(*pieces, [rest])]


def _choices(body: str, pattern: str) -> list[str]:
    if "," in body:
        return body.split(",")
    match = _RANGE.match(body)
    if match is None:
        return ["{" + body + "}"]
    first, last, step = int(match[1]), int(match[2]), int(match[3] or 1)
    if step < 1:
        raise ConfigError(f"input {pattern}: step 0 in {{{body}}}; give 1 or more")
    if abs(last - first) // step + 1 > MAX_EXPANSIONS:
        raise ConfigError(
            f"input {pattern}: {{{body}}} stands for over {MAX_EXPANSIONS:,} names; split the pattern"
        )
    padded = any(len(end.lstrip("-")) > 1 and end.lstrip("-").startswith("0") for end in (match[1], match[2]))
    width = max(len(match[1]), len(match[2])) if padded else 0
    numbers: Iterator[int] | range
    numbers = range(first, last + 1, step) if last >= first else range(first, last - 1, -step)
    return [f"{number:0{width}d}" for number in numbers]


def glob_to_regex(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay inside one folder, `**/` is any number of folders, `[a-z]` and `[!a]` are sets."""
    out, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        if pattern.startswith("**/", at):
            out, at = out + "(?:[^/]+/)*", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif character == "*":
            out, at = out + "[^/]*", at + 1
        elif character == "?":
            out, at = out + "[^/]", at + 1
        elif character == "[" and (close := pattern.find("]", at + 2)) != -1:
            body = pattern[at + 1 : close].replace("\\", "\\\\").replace("[", "\\[")
            out, at = out + "[" + ("^" + body[1:] if body.startswith("!") else body) + "]", close + 1
        else:
            out, at = out + re.escape(character), at + 1
    return re.compile(out + r"\Z", re.DOTALL)
