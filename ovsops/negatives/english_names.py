"""Words of an English caption that look like attributes and are parts of names, or things of their own."""

from collections.abc import Container, Sequence

THING_COLOURS = frozenset({"orange", "silver", "gold", "cream", "violet", "turquoise"})
"""Colours that are named like a thing or a stuff."""
_METALS = frozenset({"silver", "gold"})
_ARTICLES = frozenset({"a", "an", "the"})
_JOINED = frozenset(
    {"and", ",", "both", "a", "an", "the", "combination", "mix", "mixture", "of", "from", "with"}
)
"""Words between "made of" and one of its stuffs."""
_MADE = frozenset({"made", "out", "consisting", "built", "crafted", "composed", "constructed"})
_MIXED = frozenset({"combination", "mix", "mixture"})
_OF_COLOURS = frozenset(
    "shade shades hue hues tone tones tint tints color colors colour colours touch touches hint hints".split()
)
"""What is of a colour, not of a metal."""
_LIKE_SIZES = frozenset({"fresh", "ripe", "peeled", "sliced", "half", "whole", "round", "single", "cut"})
"""Words before a fruit that the lexicon does not have."""


def capital_names(
    text: str, spans: Sequence[tuple[str, int, int]], function_words: Container[str]
) -> frozenset[int]:
    """Tokens in names: two neighbours or more that begin with capitals ("Red Bull", "the White House").

    A caption that has capitals everywhere tells nothing: one without small letters, or with function words in
    capitals ("A Red Car On The Street").
    """
    if text[1:].islower() or not any(char.islower() for char in text):
        return frozenset()
    names: set[int] = set()
    run: list[int] = []
    previous = "."
    for place, (token, start, _) in enumerate(spans):
        is_capital = text[start].isupper()
        if token in function_words and is_capital and previous not in ".!?:;":
            return frozenset()
        if is_capital and token not in function_words:
            run.append(place)
        else:
            if len(run) > 1:
                names.update(run)
            run = []
        previous = token
    if len(run) > 1:
        names.update(run)
    return frozenset(names)


def colours_as_things(
    tokens: Sequence[str], described: Container[int], boundaries: Container[str]
) -> frozenset[int]:
    """Tokens that are named like a colour and are a thing: "a white orange", "a spoon made of silver".

    `described` are the tokens of attributes; `boundaries` are the words that end a run of words before a noun.
    """
    return frozenset(
        place
        for place, token in enumerate(tokens)
        if token in THING_COLOURS
        and (_ends_noun_phrase(tokens, place, described, boundaries) or _is_stuff(tokens, place))
    )


def _ends_noun_phrase(
    tokens: Sequence[str], place: int, described: Container[int], boundaries: Container[str]
) -> bool:
    """Whether nothing stands between an article and the word but attributes, and no noun behind it."""
    after = tokens[place + 1] if place + 1 < len(tokens) else ""
    if after[:1].isalnum() and after not in boundaries:
        return False
    before = place - 1
    if tokens[place] != "orange" and after in ("and", "or", ","):  # "a silver and black car"
        return False
    while before >= 0 and (before in described or tokens[before] in _LIKE_SIZES):
        before -= 1
    is_alone = before == place - 1
    if before < 0:  # "white orange on a plate"
        return not is_alone
    return tokens[before] in _ARTICLES and (is_alone or after not in ("and", "or", ","))


def _is_stuff(tokens: Sequence[str], place: int) -> bool:
    """Whether a metal is what something is made of: "made of gold and silver", "a cup of gold"."""
    after = tokens[place + 1] if place + 1 < len(tokens) else ""
    if tokens[place] not in _METALS or (
        after[:1].isalnum() and after not in _JOINED | {"with", "in", "on", "that"}
    ):
        return False
    before = place - 1
    passed: set[str] = set()
    while before >= 0 and (tokens[before] in _JOINED or tokens[before] in _METALS):
        passed.add(tokens[before])
        before -= 1
    if not passed & {"of", "from"}:
        return False
    maker = tokens[before] if before >= 0 else ""
    return maker in _MADE or (not passed & _MIXED and maker not in _OF_COLOURS)
