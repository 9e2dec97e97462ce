"""A vocabulary: classes with ids that never move, and how each is prompted in which language.

    name: photos
    languages: [en, zh]      # the first is the language of the class names, unless name_language is given
    templates: {en: imagenet_80, zh: zh_photo_12}       # a named set, or a list of sentences
    background: {en: [background]}                      # prompts of what is no class
    exclusive: [[sky, sea]]                             # at most one of these may hold for a region
    classes:
      - {id: 1, name: cat, kind: thing, group: animal, prompts: {en: [cat, kitten], zh: [猫]}}

A class that gives no prompts in the language of the names is prompted there by its name; `prompts: {en: []}`
says that it is not prompted in that language. Ids start at 1, need not be dense, and are append-only
(`check_append_only`). Anchors and aliases are refused. Class names and prompts end without a full stop.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from ovsops.errors import VocabularyError
from ovsops.text.fields import Fields
from ovsops.text.names import canonical_name, nearest
from ovsops.text.templates import check_templates, load_templates
from ovsops.text.yaml_file import read_yaml

Kind = Literal["thing", "stuff"]
"""Things are counted: one region an instance. Stuff is measured: one region an image."""

MAX_CLASS_ID = 2**31 - 1
"""Ids are int32 in the tables."""
MAX_CLASSES = 65_534
"""Class maps hold uint16 positions, and 0 is background."""
MAX_NAME_CHARS = 200

DEFAULT_TEMPLATES = {"en": "imagenet_80", "zh": "zh_photo_12"}
"""Template set of a language that names none; other languages get `plain`."""

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*")
_CLASS_FIELDS = (
    "id",
    "name",
    "prompts",
    "negative_prompts",
    "kind",
    "group",
    "parent",
    "synset",
    "definition",
)
_VOCABULARY_FIELDS = ("name", "languages", "name_language", "templates", "background", "exclusive", "classes")

Prompts = Mapping[str, tuple[str, ...]]
"""Prompts by language."""


@dataclass(frozen=True, kw_only=True)
class ClassSpec:
    """One class. Checked as part of its `Vocabulary`."""

    id: int
    """Category id in every output, 1 to 2**31 - 1; never reused for another class."""
    name: str
    """Unique in its vocabulary after Unicode NFC, trimming and case folding."""
    prompts: Prompts = field(default_factory=dict)
    """Words for the class, put into the templates of their language."""
    negative_prompts: Prompts = field(default_factory=dict)
    """What is easily taken for the class and is not it."""
    kind: Kind = "thing"
    group: str = ""
    """Free text; `supercategory` in COCO."""
    parent: str | None = None
    """Name of the class that this one is a kind of."""
    synset: str = ""
    """WordNet synset, for people and exports; no number depends on it."""
    definition: str = ""
    """What the class means, for people; no number depends on it."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The classes of a run. Building one checks all that does not depend on the languages asked for."""

    name: str
    languages: tuple[str, ...]
    """Languages that prompts may be written in."""
    classes: tuple[ClassSpec, ...]
    """In file order; a class map's label j is the j-th of these."""
    templates: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    """By language: the name of a template set, or the sentences. Missing ones are filled from `DEFAULT_TEMPLATES`."""
    background: Prompts = field(default_factory=dict)
    """Prompts of what is none of the classes."""
    exclusive: tuple[tuple[str, ...], ...] = ()
    """Groups of class names of which at most one may hold for a region."""
    name_language: str = ""
    """Language of the class names; the first of `languages` when empty."""

    def __post_init__(self) -> None:
        if not self.name_language and self.languages:
            object.__setattr__(self, "name_language", self.languages[0])
        defaults = {language: DEFAULT_TEMPLATES.get(language, "plain") for language in self.languages}
        object.__setattr__(self, "templates", defaults | dict(self.templates))
        _check_vocabulary(self)

    @property
    def ids(self) -> tuple[int, ...]:
        """Category ids, in file order."""
        return tuple(spec.id for spec in self.classes)

    @property
    def by_id(self) -> dict[int, ClassSpec]:
        """Classes by category id."""
        return {spec.id: spec for spec in self.classes}

    @property
    def by_name(self) -> dict[str, ClassSpec]:
        """Classes by name as written."""
        return {spec.name: spec for spec in self.classes}

    def prompts_of(self, spec: ClassSpec, language: str) -> tuple[str, ...]:
        """Prompts of a class in a language: its own, else its name if names are in it, else none."""
        return spec.prompts.get(language, (spec.name,) if language == self.name_language else ())

    def templates_of(self, language: str) -> tuple[str, ...]:
        """Templates of a language."""
        chosen = self.templates[language]
        return load_templates(chosen) if isinstance(chosen, str) else chosen

    def to_mapping(self) -> dict[str, Any]:
        """Plain data, the same for equal vocabularies: what `run.json` keeps and hashes are taken of."""
        return {
            "name": self.name,
            "languages": list(self.languages),
            "name_language": self.name_language,
            "templates": {
                language: chosen if isinstance(chosen, str) else list(chosen)
                for language, chosen in sorted(self.templates.items())
            },
            "background": _plain(self.background),
            "exclusive": [list(names) for names in self.exclusive],
            "classes": [
                {
                    "id": spec.id,
                    "name": spec.name,
                    "kind": spec.kind,
                    "group": spec.group,
                    "parent": spec.parent,
                    "prompts": _plain(spec.prompts),
                    "negative_prompts": _plain(spec.negative_prompts),
                    "synset": spec.synset,
                    "definition": spec.definition,
                }
                for spec in self.classes
            ],
        }

    @classmethod
    def from_mapping(cls, data: Any) -> "Vocabulary":
        """Inverse of `to_mapping`; takes what a YAML file holds. Raises `VocabularyError`."""
        fields = Fields(data, where="vocabulary", known=_VOCABULARY_FIELDS)
        name = fields.text("name")
        fields.where = f"vocabulary {name}"
        return cls(
            name=name,
            languages=fields.texts("languages"),
            name_language=fields.text("name_language", ""),
            templates={
                language: value if isinstance(value, str) else sentences[language]
                for sentences in [fields.texts_by_language("templates")]
                for language, value in fields.mapping("templates").items()
            },
            background=fields.texts_by_language("background"),
            exclusive=tuple(
                Fields({"exclusive": names}, where=fields.where, known=("exclusive",)).texts("exclusive")
                for names in fields.items("exclusive")
            ),
            classes=tuple(
                _class_from_mapping(item, where=f"{fields.where}: class no. {number}")
                for number, item in enumerate(fields.items("classes"), 1)
            ),
        )


def load_vocabulary(path: str | Path) -> Vocabulary:
    """A vocabulary from a YAML file. Raises `VocabularyError` that names the file, class and field."""
    try:
        return Vocabulary.from_mapping(read_yaml(Path(path)))
    except VocabularyError as error:
        prefix = "" if str(error).startswith(str(path)) else f"{path}: "
        raise VocabularyError(f"{prefix}{error}") from error


def check_append_only(previous: Vocabulary, current: Vocabulary) -> None:
    """Ids of a previous run must still mean what they meant; new ids may be added anywhere.

    Raises `VocabularyError` naming each id that was removed, renamed or changed its kind. Prompts may change.
    """
    now = current.by_id
    ids_by_name = {canonical_name(spec.name): spec.id for spec in current.classes}
    moved = []
    for old in previous.classes:
        new = now.get(old.id)
        if new is not None and canonical_name(new.name) == canonical_name(old.name):
            if new.kind != old.kind:
                moved.append(f"class {old.id} {old.name!r} was {old.kind} and is now {new.kind}")
            continue
        elsewhere = ids_by_name.get(canonical_name(old.name))
        if elsewhere is not None:
            moved.append(f"{old.name!r} moved from id {old.id} to {elsewhere}")
        elif new is not None:
            moved.append(f"id {old.id} was {old.name!r} and is now {new.name!r}")
        else:
            moved.append(f"class {old.id} {old.name!r} is gone")
    if moved:
        more = f"; and {len(moved) - 10} more" if len(moved) > 10 else ""
        raise VocabularyError(
            f"vocabulary {current.name}: category ids are append-only, but {'; '.join(moved[:10])}{more}."
            " Put them back and give new classes new ids, or write to a new output folder"
        )


def _class_from_mapping(data: Any, *, where: str) -> ClassSpec:
    if isinstance(data, Mapping) and "id" in data:
        where = f"{where} (id {data['id']}, {str(data.get('name'))[:40]!r})"
    fields = Fields(data, where=where, known=_CLASS_FIELDS)
    kind = fields.text("kind", "thing")
    if kind not in get_args(Kind):
        raise VocabularyError(f"{where}: field 'kind' is {kind!r}; write thing or stuff")
    return ClassSpec(
        id=fields.integer("id"),
        name=fields.text("name"),
        prompts=fields.texts_by_language("prompts"),
        negative_prompts=fields.texts_by_language("negative_prompts"),
        kind="thing" if kind == "thing" else "stuff",
        group=fields.text("group", ""),
        parent=fields.text("parent", "") or None,
        synset=fields.text("synset", ""),
        definition=fields.text("definition", ""),
    )


def _plain(prompts: Prompts) -> dict[str, list[str]]:
    return {language: list(prompts[language]) for language in sorted(prompts)}


def _check_vocabulary(vocabulary: Vocabulary) -> None:
    where = f"vocabulary {vocabulary.name}"
    _check_text(vocabulary.name, where=f"{where}: field 'name'")
    _check_languages(vocabulary, where)
    if not vocabulary.classes:
        raise VocabularyError(f"{where}: there are no classes; add at least one under 'classes'")
    if len(vocabulary.classes) > MAX_CLASSES:
        raise VocabularyError(
            f"{where}: {len(vocabulary.classes)} classes; a class map holds at most {MAX_CLASSES}"
        )
    for language, chosen in vocabulary.templates.items():
        _check_language(language, vocabulary, where=f"{where}: field 'templates'")
        if isinstance(chosen, str):
            load_templates(chosen)
        else:
            check_templates(chosen, where=f"{where}: templates of {language}")
    _check_prompts(vocabulary.background, vocabulary, where=f"{where}: field 'background'")
    _check_classes(vocabulary, where)
    _check_parents(vocabulary, where)
    names = tuple(vocabulary.by_name)
    for group in vocabulary.exclusive:
        for name in group:
            if name not in names:
                raise VocabularyError(
                    f"{where}: field 'exclusive' names {name!r}, which is no class{nearest(name, names)}"
                )
        if len(set(group)) < 2 or len(set(group)) < len(group):
            raise VocabularyError(
                f"{where}: field 'exclusive' has {list(group)}; a group is two or more different names"
            )


def _check_languages(vocabulary: Vocabulary, where: str) -> None:
    if not vocabulary.languages:
        raise VocabularyError(f"{where}: field 'languages' is empty; write, for example, languages: [en]")
    for language in vocabulary.languages:
        if not _LANGUAGE.fullmatch(language):
            raise VocabularyError(
                f"{where}: language {language!r} is no language tag; write tags like en, zh, pt-BR"
            )
    if len(set(vocabulary.languages)) < len(vocabulary.languages):
        raise VocabularyError(f"{where}: field 'languages' names one twice: {list(vocabulary.languages)}")
    _check_language(vocabulary.name_language, vocabulary, where=f"{where}: field 'name_language'")


def _check_language(language: str, vocabulary: Vocabulary, *, where: str) -> None:
    if language not in vocabulary.languages:
        raise VocabularyError(
            f"{where} has language {language!r}, which is not in languages:"
            f" {list(vocabulary.languages)}; add it there"
        )


def _check_classes(vocabulary: Vocabulary, where: str) -> None:
    by_id: dict[int, ClassSpec] = {}
    by_name: dict[str, ClassSpec] = {}
    for spec in vocabulary.classes:
        here = f"{where}: class {spec.id} {spec.name!r}"
        if not 1 <= spec.id <= MAX_CLASS_ID:
            raise VocabularyError(
                f"{here}: field 'id' must be 1 to {MAX_CLASS_ID}; tools read id 0 as no class"
            )
        if spec.id in by_id:
            raise VocabularyError(
                f"{here}: id {spec.id} is taken by {by_id[spec.id].name!r}; give it an id of its own"
            )
        _check_text(spec.name, where=f"{here}: field 'name'")
        same = by_name.setdefault(canonical_name(spec.name), spec)
        if same is not spec:
            raise VocabularyError(
                f"{here}: the name equals that of class {same.id} {same.name!r}"
                " but for case, spaces or dots; rename one"
            )
        by_id[spec.id] = spec
        _check_prompts(spec.prompts, vocabulary, where=f"{here}: field 'prompts'")
        _check_prompts(spec.negative_prompts, vocabulary, where=f"{here}: field 'negative_prompts'")
        if not any(vocabulary.prompts_of(spec, language) for language in vocabulary.languages):
            raise VocabularyError(f"{here} has no prompts in any language; add some under 'prompts'")
        for language, negatives in spec.negative_prompts.items():
            own = {canonical_name(p) for p in vocabulary.prompts_of(spec, language)}
            for negative in negatives:
                if canonical_name(negative) in own:
                    raise VocabularyError(
                        f"{here}: {negative!r} is both a prompt and a negative prompt; keep one"
                    )


def _check_prompts(prompts: Prompts, vocabulary: Vocabulary, *, where: str) -> None:
    for language, texts in prompts.items():
        _check_language(language, vocabulary, where=where)
        for text in texts:
            _check_text(text, where=f"{where} ({language})")
        _check_distinct(texts, where=f"{where} ({language})")


def _check_distinct(texts: Sequence[str], *, where: str) -> None:
    if len({canonical_name(t) for t in texts}) < len(texts):
        raise VocabularyError(
            f"{where}: a prompt comes twice (but for case, spaces or dots) in {list(texts)}; remove one"
        )


def _check_text(text: str, *, where: str) -> None:
    if not canonical_name(text) or text != text.strip():
        raise VocabularyError(f"{where}: {text!r} is empty or has spaces around it; write the words alone")
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        raise VocabularyError(
            f"{where}: {text!r} holds control characters or broken Unicode; write it on one line"
        )
    if len(text) > MAX_NAME_CHARS:
        raise VocabularyError(
            f"{where}: {len(text)} characters, at most {MAX_NAME_CHARS}: {text[:40]!r}...; shorten it"
        )
    if text[-1] in ".。":
        raise VocabularyError(
            f"{where}: {text!r} ends with a full stop; leave it out:"
            " templates add their own and detectors split there"
        )


def _check_parents(vocabulary: Vocabulary, where: str) -> None:
    by_name = vocabulary.by_name
    for spec in vocabulary.classes:
        if spec.parent is not None and spec.parent not in by_name:
            raise VocabularyError(
                f"{where}: class {spec.id} {spec.name!r}: parent {spec.parent!r} is no class"
                f"{nearest(spec.parent, by_name)}"
            )
    for spec in vocabulary.classes:
        line = list(_ancestors(spec, by_name))
        if spec.name in line:
            chain = " -> ".join([spec.name, *line[: line.index(spec.name) + 1]])
            raise VocabularyError(
                f"{where}: class {spec.id} {spec.name!r} is its own ancestor: {chain}; cut the circle"
            )


def _ancestors(spec: ClassSpec, by_name: Mapping[str, ClassSpec]) -> Iterable[str]:
    """Parent, its parent, and so on, each once."""
    seen: set[str] = set()
    while spec.parent is not None and spec.parent not in seen:
        seen.add(spec.parent)
        yield spec.parent
        spec = by_name[spec.parent]
