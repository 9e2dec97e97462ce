"""Attribute slots of a Chinese region phrase.

There are no spaces, so a word is found by its longest written form and kept only where its
neighbours allow it: 树 is no tree in 树懒, 小 no size in 小提琴, 玻璃 no material where it is the thing
itself; words that the lexicon protects (红绿灯) are never cut up. Measure words stay: a noun is
exchanged for one that is counted by the same, wherever the measure stands before it. Marks of an action
(在, 着) stay, too: only the verb changes.
"""

import re
from functools import cache
from typing import NamedTuple

from ovsops.negatives.lexicon import (
    ANIMAL,
    ANY,
    FIXED,
    NO_PERSON,
    PERSON,
    THING,
    AttributeType,
    Lexicon,
    load_lexicon,
)
from ovsops.negatives.phrase import Found, Phrase, finished

_LINKS = frozenset("和与及、，,或的")
_AFTER_NOUN = frozenset("在和与的上下里前后旁，。、；,.;!！?？ 有是被正放挂躺站坐背由用")
_AFTER_THING = _AFTER_NOUN | frozenset(
    "及中内左右边身从把向对骑拿跑走蹲跪趴睡游飞爬跳推拉踢踩戴穿抱举提牵吃喝玩看追弹打停靠"
)
_AFTER_STANDING = frozenset("的，。、；,.;!！?？ 了看等吃喝聊说玩休唱写读听")
"""What may follow 坐着 and 走着 alike: no thing that is there (坐着三个人) and none that is used (坐着轮椅)."""
_AFTER_BARE = frozenset("的和与，。、；,.;!！?？ 了时")
_MADE = re.compile(r"(?:、|和|与|及)|制成|做成|做的|制作|打造|组成|材质|材料|制品")
_MADE_FROM = frozenset("由用以")
_NUMBERS = "一二两三四五六七八九十百千几多第"
_COUNTED = re.compile(rf"(?:[{_NUMBERS}这那每]|\d)(?![{_NUMBERS}])([\u4e00-\u9fff])")
_NO_MEASURES = frozenset("些样起直边旁侧下般共定切种角半字里是儿年天月次家楼号色")
_MORE_MEASURES = frozenset("个名位套堆排层枚幅瓶杯盘碗篮群株对")
"""Measure words beside those of the lexicon's nouns."""
_TINTS = frozenset(
    "红黄蓝绿白黑灰紫粉橙棕褐金银青橘深浅淡暗亮鲜嫩雪乌漆碧墨翠草军土枣玫瑰砖姜宝湖海奶乳纯火驼藏靛柠檬榄荷槟果牙珠雀光"
)
"""Right before a colour they make it another one: 墨绿色, 雪白的."""
_BEFORE_SHORT_COLOUR = frozenset("的穿戴着拿提背系围和与及是有把用很旧新")
_USERS = frozenset("着了穿戴骑吃喝弹拿抱举提推拉踢")
"""Verbs whose thing is not exchanged where no measure word tells which would do (穿白衬衫)."""
_DOES = re.compile(r"正?在|正$|$")
_PLAIN = frozenset("的和与、，。,.;!？?！； ")


class _Table(NamedTuple):
    lexicon: Lexicon
    pattern: re.Pattern[str]
    measures: frozenset[str]
    objects: re.Pattern[str]


@cache
def _table() -> _Table:
    lexicon = load_lexicon("zh")
    words = sorted({*lexicon.by_surface, *lexicon.wording.names}, key=lambda word: (-len(word), word))
    nouns = [term.surface for term in lexicon.types["object"].terms]
    roles = {role for term in lexicon.types["object"].terms for role in term.roles}
    return _Table(
        lexicon,
        re.compile("|".join(map(re.escape, words))),
        frozenset(role[0] for role in roles if _is_chinese(role[0])) | _MORE_MEASURES,
        re.compile("|".join(map(re.escape, sorted(nouns, key=len, reverse=True)))),
    )


def parse_chinese(text: str) -> Phrase:
    """The slots of a Chinese caption."""
    table = _table()
    found: list[Found] = []
    place, has_object = 0, False
    while (match := table.pattern.search(text, place)) is not None:
        start, end = match.span()
        word = match.group()
        kinds = table.lexicon.by_surface.get(word, ())
        place = start + 1 if kinds else end  # a name of several characters is not cut up
        for kind, term in kinds:
            role = _role(kind, term, text, start, end, found)
            if role is None or (kind == "object" and has_object):
                continue
            has_object |= kind == "object"
            found.append(Found(kind, term, role, start, end, start, end))
            place = end
            break
    thing = next((slot for slot in found if slot.type == "object"), None)
    for slot in found:
        slot.head = "" if slot.type == "object" or thing is None else text[thing.start : thing.end]
    if thing is not None:
        _fix_action_of_thing(thing, found, text)
        if thing.role != FIXED:
            thing.role = _with_kind(thing, found, text)
    return finished(text, "zh", found, list(text), _LINKS)


def _role(kind: AttributeType, term: int, text: str, start: int, end: int, found: list[Found]) -> str | None:
    """The role of a match if it is what `kind` says here; else None. `found`: the slots before it."""
    table = _table()
    before, after = text[start - 1 : start], text[end : end + 1]
    roles = table.lexicon.types[kind].terms[term].roles
    if kind == "colour":
        return _colour_role(roles, text, start, end, found)
    if kind == "material":
        made = _MADE.match(text, end)
        is_after_maker = any(char in _MADE_FROM for char in text[max(0, start - 6) : start])
        if made and (is_after_maker or made.group() in ("材质", "材料", "制成", "做成", "做的", "制作")):
            return "n" if "n" in roles else None
        is_before_noun = bool(after) and (after == "的" or after not in _AFTER_NOUN)
        return "a" if is_before_noun and "a" in roles else None
    if kind == "object":
        return _object_role(text, start, end, found)
    if kind == "action":
        return _action_role(roles, before, after)
    if kind == "pattern" and any(char in _MADE_FROM for char in text[max(0, start - 4) : start]):
        return None  # 由竹子编织的
    if kind == "size":
        is_joined = after == "的" or any(
            k not in ("relation", "count", "size")
            for m in [table.pattern.match(text, end)]
            if m
            for k, _ in table.lexicon.by_surface.get(m.group(), ())
        )
        return ANY if is_joined and not (before and before in "大小高") else None
    if kind == "count":
        return ANY if after in table.measures and (not before or before not in _NUMBERS) else None
    if kind == "relation":
        return ANY if "在" in text[:start] or after in ("的", "是") else None
    return ANY


def _colour_role(roles: frozenset[str], text: str, start: int, end: int, found: list[Found]) -> str | None:
    table = _table()
    before, after = text[start - 1 : start], text[end : end + 1]
    is_behind_slot = bool(found) and found[-1].end == start
    if not is_behind_slot and before and before in _TINTS:
        return None
    if "b" not in roles:
        return "c"
    is_free = (
        is_behind_slot
        or not _is_chinese(before)
        or before in _BEFORE_SHORT_COLOUR
        or before in table.measures
    )
    return "b" if is_free and (after == "的" or table.objects.match(text, end)) else None


def _action_role(roles: frozenset[str], before: str, after: str) -> str | None:
    """The mark with which a verb stands; what stands behind it must suit all verbs with that mark."""
    if "在" in roles:
        return "在" if _is_chinese(after) else None
    if "物" in roles:
        return "物" if _is_chinese(after) else FIXED
    if "着" in roles:
        if not after or after in _AFTER_STANDING:
            return "着"
        return "存" if "存" in roles and after in _NUMBERS else FIXED
    return "动" if not after or after in _AFTER_BARE else None


def _object_role(text: str, start: int, end: int, found: list[Found]) -> str | None:
    """The measure word of a noun, empty where it has none; `FIXED` where no other noun is sure to fit."""
    table = _table()
    before, after = text[start - 1 : start], text[end : end + 1]
    last = found[-1] if found else None
    is_behind_slot = last is not None and last.end == start
    if last is not None and last.type == "action" and is_behind_slot:  # 骑着马的女人: the woman is meant
        return None
    counted = [m.group(1) for m in _COUNTED.finditer(text, 0, start) if m.group(1) not in _NO_MEASURES]
    is_free = is_behind_slot or not before or before == "的" or not _is_chinese(before)
    is_counted = before in table.measures and bool(counted)
    if (after and after not in _AFTER_THING) or not (is_free or is_counted):
        return None
    begin = start
    for slot in reversed(found):
        if slot.end != begin and text[slot.end : begin] != "的":
            break
        if slot.type == "action":
            if slot.end == begin and slot.role not in ("动", "着"):  # 拿着红色的包
                return FIXED
            break
        begin = slot.start
    if begin and begin < start and text[begin - 1] in _USERS:
        return FIXED
    return counted[-1] if counted else ""


def _fix_action_of_thing(thing: Found, found: list[Found], text: str) -> None:
    """A plane that flies does not sit: what a lifeless thing does stays as it is."""
    if THING not in _table().lexicon.types["object"].terms[thing.term].roles:
        return
    for slot in found:
        if slot.type == "action" and slot.role in ("着", "动") and _DOES.match(text, thing.end, slot.start):
            slot.role = FIXED


def _with_kind(thing: Found, found: list[Found], text: str) -> str:
    """The role with what kind of thing fits: where the caption says more than a thing with its attributes, those that
    act stand for each other only; persons always do."""
    objects = _table().lexicon.types["object"]
    roles = objects.terms[thing.term].roles
    kind = PERSON if PERSON in roles else ANIMAL if ANIMAL in roles else THING
    rest = list(text)
    for slot in found:
        if slot.type != "action":
            rest[slot.start : slot.end] = " " * (slot.end - slot.start)
    said = _COUNTED.sub("", "".join(rest))
    is_plain = all(char in _PLAIN or char in _table().measures for char in said)
    if kind != PERSON and is_plain:
        role = thing.role or NO_PERSON
    else:
        role = f"{thing.role}{kind}"
    return role if role in objects.roles else FIXED


def _is_chinese(char: str) -> bool:
    return "\u4e00" <= char <= "\u9fff"
