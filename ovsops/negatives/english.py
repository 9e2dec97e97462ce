"""Attribute slots of an English region phrase.

A noun phrase is read word by word. Stuff words ("glass", "paper") are attributes before another noun or
after "made of", and things otherwise: "a glass bowl" has a material, "a transparent glass" has none. A word
within a hyphenated one ("metal-framed") is never cut out of it, nor one out of a name: "hot dog" (the lexicon has a
list), "Red Bull" (both words with capitals). A colour that stands as a noun is no slot ("an orange", "made of silver").
"""

import re
from functools import cache
from typing import NamedTuple

from ovsops.negatives.english_names import THING_COLOURS, capital_names, colours_as_things
from ovsops.negatives.lexicon import ANY, AttributeType, Lexicon, load_lexicon, plural
from ovsops.negatives.phrase import Found, Phrase, finished

_TOKEN = re.compile(r"[a-z0-9]+(?:['’-][a-z0-9]+)*|[^\sa-z0-9]")
_LINKS = frozenset({"and", "or", ",", "a", "an", "&", "/"})
_BOUNDARIES = frozenset(
    "with made and or in on of that which who is are was has have for featuring at by from to as where while near next"
    " beside used adorned decorated attached supported consisting including forming it its the a an inside outside"
    " behind above below under over against between around wearing holding carrying riding sitting standing lying"
    " walking running then but also lying very all no not this these those his her their without per via through"
    " containing showing covered filled left right features".split()
)
"""Words that end a run of words before a noun."""
_FILLERS = frozenset(
    {"a", "an", "both", "combination", "mix", "mixture", "of", "and", ",", "or", "the", "with"}
)
"""Words that may stand between "made of" and its stuff."""
_STUFF_NOUNS = frozenset({"material", "materials"})
_NOT_COLOURS = frozenset(
    {"pepper", "wine", "tea", "coffee", "rice", "bread", "board", "hole", "light", "juice"}
)
"""A colour before these is part of a name."""
_NOT_SIZES = frozenset({"sleeved", "haired", "ago", "time", "sleeve"})
_MAKERS = frozenset(
    {"made", "out", "combination", "consisting", "built", "crafted", "composed", "constructed"}
)


_DETERMINERS = frozenset({"a", "an", "the", "his", "her", "their", "its"})


class _Table(NamedTuple):
    lexicon: Lexicon
    by_first: dict[str, list[tuple[tuple[str, ...], tuple[tuple[AttributeType, int], ...]]]]
    """By first word, the words of each surface, longest first; names in which nothing is a slot have no places."""


@cache
def _table() -> _Table:
    lexicon = load_lexicon("en")
    by_first: dict[str, list[tuple[tuple[str, ...], tuple[tuple[AttributeType, int], ...]]]] = {}
    for surface, places in lexicon.by_surface.items():
        words = tuple(surface.split())
        by_first.setdefault(words[0], []).append((words, places))
    for name in lexicon.wording.names:
        *start, last = name.split()
        for words in {(*start, last), (*start, plural(last))}:
            if " ".join(words) not in lexicon.by_surface:
                by_first.setdefault(words[0], []).append((words, ()))
    for entries in by_first.values():
        entries.sort(key=lambda entry: -len(entry[0]))
    return _Table(lexicon, by_first)


def parse_english(text: str) -> Phrase:
    """The slots of an English caption."""
    lowered = text.lower()
    if len(lowered) != len(text):  # a letter whose small form is longer: places would not fit
        lowered = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    spans = [(match.group(), match.start(), match.end()) for match in _TOKEN.finditer(lowered)]
    tokens = [span[0] for span in spans]
    matches = _matches(tokens, spans, text)
    is_before_noun = _before_nouns(tokens, matches)
    made_of = _made_of(tokens, matches)
    things: frozenset[int] = frozenset()
    if not THING_COLOURS.isdisjoint(tokens):
        described = {
            p for first, last, places in matches if places[0][0] != "object" for p in range(first, last)
        }
        things = colours_as_things(tokens, described, _BOUNDARIES)
    end_of_first = _end_of_first_noun_phrase(tokens, matches, things)
    unchanged = _unchanged(text, lowered, spans)
    found: list[Found] = []
    object_place = -1
    for k, (first, last, places) in enumerate(matches):
        if unchanged and first in unchanged:
            continue
        for kind, term in places:
            role = _role(kind, term, tokens, first, last, is_before_noun[k], made_of[first], end_of_first)
            if kind == "colour" and first in things:
                role = None
            if role is None or (kind == "object" and object_place >= 0):
                continue
            article = -1
            if (
                first
                and tokens[first - 1] in ("a", "an")
                and text[spans[first - 1][2] : spans[first][1]] == " "
            ):
                article = spans[first - 1][1]
            if kind == "object":
                object_place = len(found)
            found.append(Found(kind, term, role, spans[first][1], spans[last - 1][2], first, last, article))
            break
    _set_heads(found, tokens, object_place)
    return finished(text, "en", found, tokens, _LINKS)


def _unchanged(text: str, lowered: str, spans: list[tuple[str, int, int]]) -> frozenset[int]:
    """Tokens that stay as they are: what the caption denies, and what is in names with capitals."""
    denied = _table().lexicon.wording.denied(lowered)
    places = {
        k for k, (_, start, _) in enumerate(spans) if any(first <= start < end for first, end in denied)
    }
    return capital_names(text, spans, _BOUNDARIES).union(places)


def _matches(
    tokens: list[str], spans: list[tuple[str, int, int]], text: str
) -> list[tuple[int, int, tuple[tuple[AttributeType, int], ...]]]:
    """Longest surfaces from left to right: first token, token after the last, what it may be."""
    by_first = _table().by_first
    matches = []
    place = 0
    while place < len(tokens):
        step = 1
        for words, places in by_first.get(tokens[place], ()):
            count = len(words)
            if count == 1 or (
                tuple(tokens[place : place + count]) == words
                and all(
                    text[spans[p][2] : spans[p + 1][1]].isspace() for p in range(place, place + count - 1)
                )
            ):
                if places:
                    matches.append((place, place + count, places))
                step = count
                break
        place += step
    return matches


def _before_nouns(
    tokens: list[str], matches: list[tuple[int, int, tuple[tuple[AttributeType, int], ...]]]
) -> list[bool]:
    """Whether a match stands before the noun that it describes, so that it is no noun itself."""
    at = {first: k for k, (first, _, _) in enumerate(matches)}
    flags = [False] * len(matches)
    for k in range(len(matches) - 1, -1, -1):
        place = matches[k][1]
        is_joined = False
        while place < len(tokens) and tokens[place] in (",", "and", "or"):
            is_joined = True
            place += 1
        if place >= len(tokens):
            continue
        following = at.get(place)
        if is_joined:  # "metal and glass case": as the next value of the list
            kinds = {kind for kind, _ in matches[following][2]} if following is not None else set()
            flags[k] = following is not None and kinds != {"object"} and flags[following]
        else:
            flags[k] = tokens[place] not in _BOUNDARIES and tokens[place][0].isalnum()
    return flags


def _made_of(
    tokens: list[str], matches: list[tuple[int, int, tuple[tuple[AttributeType, int], ...]]]
) -> list[bool]:
    """Of each token, whether it stands in the stuff that "made of" or "in" names."""
    inside = [False] * len(tokens)
    matched = {p for first, last, _ in matches for p in range(first, last)}
    is_open = False
    for place, token in enumerate(tokens):
        before = tokens[place - 1] if place else ""
        if token in ("of", "from", "with") and before in _MAKERS:
            is_open = True
        elif token == "in":
            is_open = True
        elif is_open and place not in matched and token not in _FILLERS:
            is_open = False
        inside[place] = is_open
    return inside


def _end_of_first_noun_phrase(
    tokens: list[str],
    matches: list[tuple[int, int, tuple[tuple[AttributeType, int], ...]]],
    things: frozenset[int],
) -> int:
    """Place of the token after the first run of words that ends in a noun."""
    attributes = {
        p
        for first, last, places in matches
        if all(kind != "object" for kind, _ in places)
        for p in range(first, last)
    }
    has_noun = False
    for place, token in enumerate(tokens):
        is_boundary = token in _BOUNDARIES or not token[0].isalnum()
        if is_boundary and has_noun:
            return place
        has_noun |= not is_boundary and (place not in attributes or place in things)
    return len(tokens)


def _role(
    kind: AttributeType,
    term: int,
    tokens: list[str],
    first: int,
    last: int,
    is_before_noun: bool,
    is_made_of: bool,
    end_of_first: int,
) -> str | None:
    """The role of a match if it is what `kind` says here; else None."""
    following = tokens[last] if last < len(tokens) else ""
    if kind == "material":
        if following in _STUFF_NOUNS:
            return "n"
        if is_before_noun:
            return "a"
        return "n" if is_made_of else None
    if kind == "colour":
        return None if following in _NOT_COLOURS else ANY
    if kind == "pattern":
        if following in ("pattern", "patterns", "patterned"):
            return "p"
        return "a" if "a" in _term_roles(kind, term) else None
    if kind == "object":
        # "slipper (footwear)" explains a word; "a glass of wine" is about the wine
        is_head = last == end_of_first and not is_before_noun and following not in ("(", "of")
        return next(iter(_term_roles(kind, term) - {ANY})) if is_head else None
    if kind == "size":
        return ANY if is_before_noun and following not in _NOT_SIZES else None
    if kind == "count":
        return ANY if is_before_noun else None
    if kind == "action" and tokens[first] == "painting":  # "a painting on a wall"
        return ANY if following in _DETERMINERS else None
    if kind == "relation":
        return None if following in ("and", "or") else ANY
    if kind == "transparency":
        return "a" if is_before_noun else ANY if "a" not in _term_roles(kind, term) else None
    return ANY


def _term_roles(kind: AttributeType, term: int) -> frozenset[str]:
    return _table().lexicon.types[kind].terms[term].roles


def _set_heads(found: list[Found], tokens: list[str], object_place: int) -> None:
    """What each slot describes: the next noun if it stands before one, else the last noun before it."""
    taken = [False] * len(tokens)
    for slot in found:
        if slot.type != "object":
            taken[slot.first : slot.last] = [True] * (slot.last - slot.first)
    is_noun = [not t and w not in _BOUNDARIES and w[0].isalnum() for w, t in zip(tokens, taken, strict=True)]
    main = " ".join(tokens[found[object_place].first : found[object_place].last]) if object_place >= 0 else ""
    for slot in found:
        place = slot.last
        while place < len(tokens) and (taken[place] or tokens[place] in (",", "and")):
            place += 1
        if slot.type == "object":
            slot.head = ""
        elif place < len(tokens) and is_noun[place]:
            while place + 1 < len(tokens) and is_noun[place + 1]:
                place += 1
            slot.head = tokens[place]
        else:
            slot.head = next((tokens[p] for p in range(slot.first - 1, -1, -1) if is_noun[p]), main)
