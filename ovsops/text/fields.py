"""One mapping of a vocabulary file, read field by field: what is wrong is said with its place."""

from collections.abc import Mapping
from typing import Any

from ovsops.errors import VocabularyError
from ovsops.text.names import nearest


class Fields:
    """A mapping from a file, its place in it (`where`), and the keys it may have."""

    def __init__(self, data: Any, *, where: str, known: tuple[str, ...]) -> None:
        self.where = where
        if not isinstance(data, Mapping):
            raise VocabularyError(f"{where}: expected a mapping with {', '.join(known)}; got {_kind(data)}")
        for key in data:
            if key not in known:
                hint = nearest(str(key), known)
                raise VocabularyError(
                    f"{where}: unknown field {key!r}{hint}; known fields: {', '.join(known)}"
                )
        self.data: Mapping[str, Any] = data

    def text(self, field: str, default: str | None = None) -> str:
        """A text field; required without a default."""
        value = self.data.get(field)
        if value is None and default is not None:
            return default
        if value is None:
            raise VocabularyError(f"{self.where}: field {field!r} is missing; add it")
        return self._text(value, field)

    def integer(self, field: str) -> int:
        """A required whole number."""
        value = self.data.get(field)
        if isinstance(value, bool) or not isinstance(value, int):
            raise VocabularyError(f"{self.where}: field {field!r} must be a whole number; got {_kind(value)}")
        return value

    def items(self, field: str) -> list[Any]:
        """A list, empty when the field is missing."""
        return self._list(self.data.get(field), field)

    def texts(self, field: str) -> tuple[str, ...]:
        """A list of texts, empty when the field is missing."""
        return self._texts(self.data.get(field), field)

    def texts_by_language(self, field: str) -> dict[str, tuple[str, ...]]:
        """`{en: [...], zh: [...]}`; one text may stand for a list of one."""
        by_language = self.mapping(field)
        return {
            self._text(language, f"{field} (a language)"): self._texts(value, f"{field}.{language}")
            for language, value in by_language.items()
        }

    def mapping(self, field: str) -> Mapping[Any, Any]:
        """A mapping, empty when the field is missing."""
        value = self.data.get(field)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise VocabularyError(
                f"{self.where}: field {field!r} must map languages to lists, like"
                f" {{en: [...]}}; got {_kind(value)}"
            )
        return value

    def _list(self, value: Any, field: str) -> list[Any]:
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise VocabularyError(f"{self.where}: field {field!r} must be a list; got {_kind(value)}")
        return list(value)

    def _texts(self, value: Any, field: str) -> tuple[str, ...]:
        values = [value] if isinstance(value, str) else self._list(value, field)
        return tuple(self._text(item, field) for item in values)

    def _text(self, value: Any, field: str) -> str:
        if not isinstance(value, str):
            raise VocabularyError(
                f"{self.where}: field {field!r} must be text; got {_kind(value)}."
                " YAML reads words like no, on and 1 as values: put them in quotes"
            )
        return value


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
