"""Attribute slots of a Chinese region phrase.

There are no spaces, so a word is found by its longest written form and kept only where its
neighbours allow it: 树 is no tree in 树懒, 小 no size in 小提琴, 玻璃 no material where it is the thing
itself. Measure words stay: a noun is exchanged for one that is counted by the same.
"""

import re
from functools import cache
from typing import NamedTuple

from ovsops.negatives.lexicon import ANY, AttributeType, Lexicon, load_lexicon
from ovsops.negatives.phrase import Found, Phrase, finished, iter_surfaces

_LINKS = frozenset("和与及、，,或的")
_AFTER_NOUN = frozenset("在和与的上下里前后旁，。、；,.;!！?？ 有是被正放挂躺站坐背由用")
_MADE = re.compile(r"(?:、|和|与|及)|制成|做成|做的|制作|打造|组成|材质|材料|制品")
_MADE_FROM = frozenset("由用以")
_COUNTED = re.compile(r"(?:[一二两三四五六七八九十几这那每]|\d)([\u4e00-\u9fff])")


class _Table(NamedTuple):
    lexicon: Lexicon
    pattern: re.Pattern[str]
    measures: frozenset[str]
    objects: re.Pattern[str]


@cache
def _table() -> _Table:
    lexicon = load_lexicon("zh")
    surfaces = [surface for surface, _ in iter_surfaces(lexicon)]
    nouns = [term.surface for term in lexicon.types["object"].terms]
    measures = {role for term in lexicon.types["object"].terms for role in term.roles} - {ANY}
    return _Table(
        lexicon,
        re.compile("|".join(map(re.escape, surfaces))),
        frozenset(measures | {"个"}),
        re.compile("|".join(map(re.escape, sorted(nouns, key=len, reverse=True)))),
    )


def parse_chinese(text: str) -> Phrase:
    """The slots of a Chinese caption."""
    table = _table()
    found: list[Found] = []
    place, last_end, has_object = 0, 0, False
    while (match := table.pattern.search(text, place)) is not None:
        start, end = match.span()
        place = start + 1
        for kind, term in table.lexicon.by_surface[match.group()]:
            role = _role(kind, term, text, start, end, last_end)
            if role is None or (kind == "object" and has_object):
                continue
            has_object |= kind == "object"
            found.append(Found(kind, term, role, start, end, start, end))
            place = last_end = end
            break
    head = next((text[slot.start : slot.end] for slot in found if slot.type == "object"), "")
    for slot in found:
        slot.head = "" if slot.type == "object" else head
    return finished(text, "zh", found, list(text), _LINKS)


def _role(kind: AttributeType, term: int, text: str, start: int, end: int, last_end: int) -> str | None:
    """The role of a match if it is what `kind` says here; else None. `last_end`: where the slot before ended."""
    table = _table()
    before, after = text[start - 1 : start], text[end : end + 1]
    roles = table.lexicon.types[kind].terms[term].roles
    if kind == "colour":
        if "b" not in roles:
            return "c"
        return "b" if after == "的" or table.objects.match(text, end) else None
    if kind == "material":
        made = _MADE.match(text, end)
        is_after_maker = any(char in _MADE_FROM for char in text[max(0, start - 6) : start])
        if made and (is_after_maker or made.group() in ("材质", "材料", "制成", "做成", "做的", "制作")):
            return "n" if "n" in roles else None
        is_before_noun = bool(after) and (after == "的" or after not in _AFTER_NOUN)
        return "a" if is_before_noun and "a" in roles else None
    if kind == "object":
        is_whole = not after or after in _AFTER_NOUN
        is_free = start == last_end or not before or before == "的" or not _is_chinese(before)
        counted = [m.group(1) for m in _COUNTED.finditer(text, 0, start) if m.group(1) in table.measures]
        is_counted = before in table.measures and bool(counted)
        if not is_whole or not (is_free or is_counted):
            return None
        measure = counted[-1] if counted else ANY
        return measure if measure in table.lexicon.types["object"].roles else None
    if kind == "size":
        is_joined = after == "的" or any(
            k not in ("relation", "count", "size")
            for m in [table.pattern.match(text, end)]
            if m
            for k, _ in table.lexicon.by_surface[m.group()]
        )
        return ANY if is_joined and not (before and before in "大小高") else None
    if kind == "count":
        return ANY if after in table.measures and before not in ("第", "十") else None
    if kind == "relation":
        return ANY if "在" in text[:start] or after in ("的", "是") else None
    return ANY


def _is_chinese(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff"
