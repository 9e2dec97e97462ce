"""Foreign plain data to our frozen dataclasses, and a JSON schema of these. The only place where pydantic is used.

The dataclasses own fields, types, defaults and checks; nothing is declared a second time here.
"""

import ast
import difflib
import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from pydantic import Discriminator, TypeAdapter, ValidationError

from ovsops.errors import ConfigError

T = TypeVar("T")

BY_KIND = Discriminator("kind")
"""Beside a union of dataclasses in `Annotated`: their field `kind` says which one is meant."""

MAX_PROBLEMS = 10
"""Problems that one message names."""


def from_plain(kind: type[T], data: Any, *, where: str) -> T:
    """An instance of the dataclass `kind`, strictly: `"16"` is no number, an unknown key is an error.

    Raises ConfigError that names every field, its value, what was expected, and the nearest known key.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: expected a mapping of fields, got {_shown(data)}")
    problems = list(unknown_keys(kind, data))
    if not problems:
        try:
            text = json.dumps(data, ensure_ascii=False)
            return TypeAdapter(kind).validate_json(text, strict=True)
        except ValidationError as error:
            problems = [_problem(e, data) for e in error.errors()]
        except (TypeError, UnicodeEncodeError) as error:
            problems = [f"not plain text, numbers, lists and mappings: {error}"]
    more = f"\n  ... and {len(problems) - MAX_PROBLEMS} more" if len(problems) > MAX_PROBLEMS else ""
    if len(problems) == 1:
        raise ConfigError(f"{where}: {problems[0]}")
    lines = "".join(f"\n  {problem}" for problem in problems[:MAX_PROBLEMS])
    raise ConfigError(f"{where}: {len(problems)} problems{lines}{more}")


def unknown_keys(kind: type, data: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """One sentence per key that no field of the dataclass tree has."""
    hints = typing.get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key, value in data.items():
        here = f"{path}.{key}" if path else str(key)
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            advice = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            yield f"{here} is not a known field; {advice}"
            continue
        if isinstance(value, Mapping):
            inner = dataclasses_in(hints[key])
            meant = inner if len(inner) < 2 else [k for k in inner if _kind_of(k) == value.get("kind")]
            for one in meant:
                yield from unknown_keys(one, value, here)


def dataclasses_in(hint: Any) -> list[type]:
    """The dataclasses of `X`, `X | None` or `X | Y`."""
    if isinstance(hint, type) and is_dataclass(hint):
        return [hint]
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [h for h in typing.get_args(hint) if isinstance(h, type) and is_dataclass(h)]
    return []


def _kind_of(kind: type) -> Any:
    """The value of `kind` that stands for a dataclass of a union."""
    return next((f.default for f in fields(kind) if f.name == "kind"), None)


def _path(loc: tuple[Any, ...], data: Any) -> str:
    """The dotted path as the file has it: pydantic puts the kind of a union's member between."""
    parts = []
    for part in loc:
        if isinstance(data, Mapping) and part not in data and data.get("kind") == part:
            continue
        parts.append(str(part))
        if isinstance(data, Mapping):
            data = data.get(part)
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
    return ".".join(parts)


def _problem(error: Any, data: Any) -> str:
    path = _path(error["loc"], data)
    if error["type"] == "union_tag_not_found":
        return f"{path}.kind is missing; it says which of the {path}s is meant"
    if error["type"] == "union_tag_invalid":
        known = error["ctx"]["expected_tags"].replace("'", "").split(", ")
        near = difflib.get_close_matches(str(error["ctx"]["tag"]), known, n=1, cutoff=0.5)
        advice = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
        return f"{path}.kind is {_shown(error['ctx']['tag'])}; {advice}"
    if error["type"] == "missing":
        return f"{path} is missing; it has no default"
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        return message if not path or path.rsplit(".", 1)[-1] in message else f"{path}: {message}"
    expected = error["msg"].replace("Input should be", "expected").removeprefix("Input ")
    hint = " (YAML reads 1e-3 as text: write 1.0e-3)" if _looks_like_number(error["input"]) else ""
    return f"{path} is {_shown(error['input'])}; {expected}{hint}"


def _looks_like_number(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value) is not None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."


def json_schema(kind: type) -> dict[str, Any]:
    """JSON schema of the dataclass tree: closed objects, field docstrings as descriptions."""
    schema = TypeAdapter(kind).json_schema()
    schema.setdefault("$schema", "https://json-schema.org/draft/2020-12/schema")
    for part in (schema, *schema.get("$defs", {}).values()):
        if part.get("type") == "object" and "properties" in part:
            part["additionalProperties"] = False
    for owner in dataclass_tree(kind):
        part = schema if owner is kind else schema.get("$defs", {}).get(owner.__name__, {})
        for name, text in field_docstrings(owner).items():
            if name in part.get("properties", {}):
                part["properties"][name]["description"] = text
    return schema


def dataclass_tree(kind: type) -> list[type]:
    """`kind` and every dataclass that its fields hold."""
    found = [kind]
    for hint in typing.get_type_hints(kind).values():
        for inner in dataclasses_in(hint):
            if inner not in found:
                found += [t for t in dataclass_tree(inner) if t not in found]
    return found


@cache
def field_docstrings(kind: type) -> Mapping[str, str]:
    """The string that stands under each field of a class."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if is_dataclass(owner):
            found |= _own_docstrings(owner)
    return found


def _own_docstrings(kind: type) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for before, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(before, ast.AnnAssign)
            and isinstance(before.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            found[before.target.id] = inspect.cleandoc(after.value.value)
    return found
