"""Vocabularies from what others have: COCO and LVIS files, plain lists; and back to YAML. Ids are kept."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ovsops.errors import VocabularyError
from ovsops.text.names import canonical_name
from ovsops.text.vocabulary import ClassSpec, Vocabulary


def vocabulary_from_coco(document: Any, *, name: str, language: str = "en", id_offset: int = 0) -> Vocabulary:
    """From the `categories` of a COCO (or COCO panoptic: `isthing`) document.

    `supercategory` becomes the group. `id_offset` is added to every id: 1 for files whose ids start at 0,
    which some tools read as no class. Raises `VocabularyError`.
    """

    def spec(category: Mapping[str, Any], where: str) -> ClassSpec:
        return ClassSpec(
            id=_class_id(category, where) + id_offset,
            name=_text(category, "name", where),
            kind="thing" if category.get("isthing", 1) else "stuff",
            group=str(category.get("supercategory") or ""),
        )

    return _vocabulary(document, spec, name=name, language=language)


def vocabulary_from_lvis(document: Any, *, name: str, language: str = "en") -> Vocabulary:
    """From the `categories` of an LVIS document: synonyms become prompts; `synset` and `def` are kept.

    Underscores become spaces, in names and synonyms. Raises `VocabularyError`.
    """

    def spec(category: Mapping[str, Any], where: str) -> ClassSpec:
        class_name = _spaced(_text(category, "name", where))
        synonyms = category.get("synonyms") or []
        if not isinstance(synonyms, list) or not all(isinstance(word, str) for word in synonyms):
            raise VocabularyError(f"{where}: field 'synonyms' must be a list of texts; got {synonyms!r}")
        return ClassSpec(
            id=_class_id(category, where),
            name=class_name,
            prompts={language: _distinct([class_name, *map(_spaced, synonyms)])},
            synset=str(category.get("synset") or ""),
            definition=" ".join(str(category.get("def") or "").split()),
        )

    return _vocabulary(document, spec, name=name, language=language)


def vocabulary_from_text(text: str, *, name: str, language: str = "en") -> Vocabulary:
    """From lines `name` or `name: synonym, synonym`, numbered from 1 in their order.

    Blank lines and lines that start with `#` are left out; Chinese colons and commas count too. The order
    gives the ids, so new classes go to the end. Raises `VocabularyError`.
    """
    classes: list[ClassSpec] = []
    for line in map(str.strip, text.splitlines()):
        if not line or line.startswith("#"):
            continue
        class_name, _, rest = (part.strip() for part in re.sub("[：]", ":", line, count=1).partition(":"))
        synonyms = [word.strip() for word in re.split("[,，、]", rest)]
        prompts = _distinct([class_name, *(word for word in synonyms if word)])
        classes.append(ClassSpec(id=len(classes) + 1, name=class_name, prompts={language: prompts}))
    return Vocabulary(name=name, languages=(language,), classes=tuple(classes))


def read_vocabulary(path: Path, *, kind: str, name: str = "", language: str = "en") -> Vocabulary:
    """A vocabulary from a file of kind `coco`, `lvis` or `text`; named after the file without a `name`."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise VocabularyError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise VocabularyError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    name = name or path.stem
    if kind == "text":
        return vocabulary_from_text(text, name=name, language=language)
    importers = {"coco": vocabulary_from_coco, "lvis": vocabulary_from_lvis}
    if kind not in importers:
        raise VocabularyError(f"{path}: cannot import kind {kind!r}; use coco, lvis or text")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise VocabularyError(f"{path}: not JSON at line {error.lineno}: {error.msg}") from error
    return importers[kind](document, name=name, language=language)


def dump_vocabulary(vocabulary: Vocabulary) -> str:
    """YAML that `load_vocabulary` reads back as an equal vocabulary; empty fields are left out."""
    mapping = vocabulary.to_mapping()
    for empty in [key for key, value in mapping.items() if not value]:
        del mapping[empty]
    mapping["classes"] = [_without_defaults(spec) for spec in mapping["classes"]]
    return yaml.safe_dump(mapping, allow_unicode=True, sort_keys=False, width=110, default_flow_style=None)


def _without_defaults(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A class's mapping without its empty fields. `prompts: {en: []}` says something, and stays."""
    return {key: value for key, value in spec.items() if value}


def _vocabulary(
    document: Any, spec: Callable[[Mapping[str, Any], str], ClassSpec], *, name: str, language: str
) -> Vocabulary:
    categories = document.get("categories") if isinstance(document, Mapping) else None
    if not isinstance(categories, list):
        raise VocabularyError(
            f"vocabulary {name}: the document has no list 'categories'; give an annotation file"
        )
    classes = []
    for number, category in enumerate(categories, 1):
        where = f"vocabulary {name}: category no. {number}"
        if not isinstance(category, Mapping):
            raise VocabularyError(f"{where} is no object with id and name: {category!r}")
        classes.append(spec(category, where))
    if any(each.id == 0 for each in classes):
        raise VocabularyError(
            f"vocabulary {name}: category ids start at 0, which tools read as no class;"
            " import with id_offset=1"
        )
    return Vocabulary(name=name, languages=(language,), classes=tuple(classes))


def _class_id(category: Mapping[str, Any], where: str) -> int:
    class_id = category.get("id")
    if isinstance(class_id, bool) or not isinstance(class_id, int):
        raise VocabularyError(f"{where}: field 'id' must be a whole number; got {class_id!r}")
    return class_id


def _text(category: Mapping[str, Any], field: str, where: str) -> str:
    value = category.get(field)
    if not isinstance(value, str):
        raise VocabularyError(f"{where}: field {field!r} must be text; got {value!r}")
    return value.strip()


def _spaced(words: str) -> str:
    return " ".join(words.replace("_", " ").split())


def _distinct(prompts: Sequence[str]) -> tuple[str, ...]:
    """Each prompt once, the first spelling of it."""
    first: dict[str, str] = {}
    for prompt in prompts:
        first.setdefault(canonical_name(prompt), prompt)
    return tuple(first.values())
