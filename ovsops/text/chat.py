"""One question to a language model, and its answer as strict JSON. Text only: who asks is elsewhere."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """One question, and the grammar of its answer."""

    system: str
    user: str
    schema_name: str
    schema: Mapping[str, Any]
    """JSON Schema of the answer."""


def reply_value(text: str) -> Any:
    """The JSON of an answer; one fence of ``` around it is allowed.

    Raises ValueError for what is no JSON, names a field twice, has a number that JSON has not, or is nested too deeply.
    """
    try:
        return json.loads(_unfenced(text), object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unfenced(text: str) -> str:
    lines = text.strip().split("\n")
    if len(lines) > 2 and lines[0].strip() in ("```", "```json") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return text


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field comes twice")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON number")
