"""When two names are the same name, and which name was probably meant."""

import difflib
import unicodedata
from collections.abc import Iterable


def canonical_name(name: str) -> str:
    """The form under which names are compared: NFC, single spaces, no case, no closing full stop.

    `Cat`, ` cat `, `cat.` and `CAT` are one name. Used to compare only: names are written as given.
    """
    words = unicodedata.normalize("NFC", name).casefold().split()
    return unicodedata.normalize("NFC", " ".join(words)).rstrip(".。 ")


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the closest known name, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
