"""JSON of any size read item by item, in memory that the largest item bounds. Damage ends the reading with a
reason; it never raises.

The top is a list, or an object whose lists are read item by item. A piece that does not parse is read on, to
double its length, until it does or is over the cap: the work stays linear in the size of the file.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pipelines.training_sets.contract import Fault
from pipelines.validation.json_keys import KeysTwice

MAX_ITEM_BYTES = 32 * 2**20
_CHUNK = 2**18
_SPACES = " \t\r\n"
_NUMBER = "0123456789.eE+-"


@dataclass(frozen=True, kw_only=True)
class JsonItem:
    """One value."""

    key: str
    """The top object's key, "" where the top is a list."""
    place: int
    """Place in the list; -1 for a value that stands in no list."""
    value: Any
    faults: tuple[Fault, ...] = ()
    """Keys that one of its objects has twice: readers do not agree about such an item."""


class JsonItems:
    """Iterates over the items of one file; `fault` says afterwards why it ended early, `keys` what the top had."""

    def __init__(self, stream: BinaryIO, max_item_bytes: int = MAX_ITEM_BYTES) -> None:
        self._stream, self._max_item = stream, max_item_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._keys = KeysTwice()
        self.keys: set[str] = set()
        """Keys of the top object so far, those of empty lists too."""
        self._text, self._at, self._is_end, self._passed = "", 0, False, 0
        self.fault: Fault | None = None

    def __iter__(self) -> Iterator[JsonItem]:
        try:
            yield from self._document()
        except _BadJson as error:
            where = f"near character {self._passed + self._at:,}"
            self.fault = Fault(error.rule, "", f"{error}, {where}")
        except UnicodeDecodeError as error:
            self.fault = Fault("file", "", f"no UTF-8: {error.reason}, after character {self._passed:,}")

    def _document(self) -> Iterator[JsonItem]:
        if self._peek() == "[":
            yield from self._list("")
        elif self._peek() == "{":
            yield from self._object()
        else:
            raise _BadJson(
                "the file is neither a JSON list nor an object (JSON Lines is not read, nor by trainers)"
            )
        if self._peek():
            raise _BadJson("something follows the end: JSON Lines, or two documents in one file")

    def _object(self) -> Iterator[JsonItem]:
        self._take("{")
        seen = self.keys
        while self._peek() != "}":
            key = self._value()
            if isinstance(key, str) and key in seen:
                raise _BadJson(f"the key {key[:80]!r} is twice in the top object", "key_twice")
            if not isinstance(key, str) or len(seen) > 10_000:
                raise _BadJson("the top object has a key that is no text, or thousands of keys")
            seen.add(key)
            self._take(":")
            if self._peek() == "[":
                yield from self._list(key)
            else:
                yield self._item(key, -1)
            if self._peek() == ",":
                self._take(",")
                if self._peek() == "}":
                    raise _BadJson("a comma ends the object")
            elif self._peek() != "}":
                raise _BadJson("a comma is missing")
        self._take("}")

    def _list(self, key: str) -> Iterator[JsonItem]:
        self._take("[")
        place = 0
        while self._peek() != "]":
            yield self._item(key, place)
            place += 1
            if self._peek() == ",":
                self._take(",")
                if self._peek() == "]":
                    raise _BadJson("a comma ends the list")
            elif self._peek() != "]":
                raise _BadJson("a comma is missing, or the file is cut off")
        self._take("]")

    def _item(self, key: str, place: int) -> JsonItem:
        value = self._value()
        return JsonItem(key=key, place=place, value=value, faults=tuple(self._keys.faults()))

    def _value(self) -> Any:
        """The next whole value."""
        self._peek()
        self._drop_passed()
        while True:
            self._keys.clear()
            try:
                value, end = self._keys.decoder.raw_decode(self._text, self._at)
            except RecursionError:
                raise _BadJson("the item is nested too deeply") from None
            except ValueError as error:  # not JSON, cut off, or a number of thousands of digits
                if self._is_end or not isinstance(error, json.JSONDecodeError):
                    raise _BadJson(f"no JSON: {str(error)[:80]}") from None
            else:
                if end - self._at > self._max_item:
                    raise _BadJson(f"an item is over {self._max_item:,} bytes", "too_large")
                if self._is_end or self._text[end : end + 1].strip(_NUMBER):
                    self._at = end
                    return value  # what a number could go on with is not there
            if len(self._text) - self._at > self._max_item:
                raise _BadJson(f"an item is over {self._max_item:,} bytes, or is no JSON", "too_large")
            self._read(max(_CHUNK, len(self._text) - self._at))

    def _peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACES:
                    return self._text[self._at]
                self._at += 1
            if self._is_end:
                return ""
            self._drop_passed()
            self._read(_CHUNK)

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise _BadJson(f"{character!r} is missing, or the file is cut off")
        self._at += 1

    def _drop_passed(self) -> None:
        if self._at > _CHUNK or self._at == len(self._text):
            self._passed += self._at
            self._text, self._at = self._text[self._at :], 0

    def _read(self, num_bytes: int) -> None:
        data = self._stream.read(num_bytes)
        self._is_end = not data
        self._text += self._decoder.decode(data, final=self._is_end)


class _BadJson(Exception):  # noqa: N818  a reason, answered in this file
    """Why reading ends."""

    def __init__(self, message: str, rule: str = "file") -> None:
        super().__init__(message)
        self.rule = rule
