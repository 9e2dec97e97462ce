"""YAML that somebody else wrote, read without trust: plain data, capped in size and depth, no key twice."""

from pathlib import Path
from typing import Any

import yaml

from ovsops.errors import VocabularyError

MAX_YAML_BYTES = 8 * 1024 * 1024
MAX_YAML_DEPTH = 16

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeyLoader(_SafeLoader):
    """Plain data; a key that comes twice in one mapping is an error instead of the last one winning."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(getattr(key_node, "value", key_node))
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} comes twice", key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def parse_yaml(text: str, *, where: str) -> Any:
    """Plain data of one YAML document.

    Raises `VocabularyError` when the text is too long or deep, repeats a key, uses aliases, or is no YAML.
    """
    num_bytes = len(text.encode("utf-8", errors="surrogatepass"))
    if num_bytes > MAX_YAML_BYTES:
        raise VocabularyError(
            f"{where}: {num_bytes} bytes, at most {MAX_YAML_BYTES} are read; split the file"
        )
    try:
        _check_events(text, where=where)
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise VocabularyError(f"{where}: not usable YAML: {error}") from error


def read_yaml(path: Path) -> Any:
    """Plain data of a YAML file in UTF-8; errors as in `parse_yaml`, and for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    return parse_yaml(text, where=str(path))


def _check_events(text: str, *, where: str) -> None:
    """Refuse depth and anchors before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, Loader=_SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise VocabularyError(f"{where}: line {_line(event)} uses an alias (*); write it out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_YAML_DEPTH:
                raise VocabularyError(
                    f"{where}: line {_line(event)} nests deeper than {MAX_YAML_DEPTH} levels"
                )
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 0
