"""Lexicons: what may stand for what."""

import pytest

from ovsops.errors import VocabularyError
from ovsops.negatives.lexicon import LANGUAGES, AttributeType, Language, lexicon_from_plain, load_lexicon


def may_replace(language: Language, kind: AttributeType, old: str, new: str) -> bool:
    terms = load_lexicon(language).types[kind]
    place = {term.surface: i for i, term in enumerate(terms.terms)}
    return bool(terms.may_replace[place[old], place[new]])


@pytest.mark.parametrize(
    ("language", "kind", "old", "new", "expected"),
    [
        ("en", "colour", "red", "green", True),
        ("en", "colour", "red", "orange", False),
        ("en", "colour", "light blue", "blue", False),
        ("en", "colour", "grey", "gray", False),
        ("en", "colour", "black", "dark brown", False),
        ("en", "material", "wooden", "wood", False),
        ("en", "material", "fabric", "wool", False),
        ("en", "material", "metal", "plastic", True),
        ("en", "transparency", "transparent", "translucent", False),
        ("en", "size", "small", "tall", False),
        ("en", "size", "long", "short", True),
        ("en", "relation", "left of", "right of", True),
        ("en", "relation", "left of", "above", False),
        ("en", "object", "cup", "mug", False),
        ("en", "object", "man", "person", False),
        ("en", "object", "tree", "fish", True),
        ("en", "object", "lamp", "glass", True),
        ("en", "object", "bottle", "glass", False),
        ("zh", "colour", "红色", "粉红色", False),
        ("zh", "colour", "红色", "蓝色", True),
        ("zh", "colour", "棕色", "褐色", False),
        ("zh", "material", "木质", "金属", True),
        ("zh", "material", "木质", "木头", False),
        ("zh", "object", "树", "树叶", False),
    ],
)
def test_what_may_stand_for_what(
    language: Language, kind: AttributeType, old: str, new: str, expected: bool
) -> None:
    assert may_replace(language, kind, old, new) is expected


@pytest.mark.parametrize("language", LANGUAGES)
def test_exclusion_is_mutual_but_for_words_that_are_only_read(language: Language) -> None:
    for kind in load_lexicon(language).types.values():
        written = kind.may_replace.any(axis=0)
        among = kind.may_replace[written][:, written]
        assert (among == among.T).all()
        assert not kind.may_replace.diagonal().any()


def test_plurals_keep_their_number() -> None:
    terms = load_lexicon("en").types["object"].terms
    roles = {term.surface: sorted(term.roles) for term in terms}
    assert roles["box"] == ["s1"]
    assert roles["boxes"] == ["p1"]
    assert roles["knives"] == ["p1"]
    assert roles["trash can"] == ["s2"]
    assert "scissor" not in roles


def test_what_is_no_lexicon() -> None:
    good = {"language": "en", "size": {"values": {"small": ["small"], "big": ["big"]}}}
    assert len(lexicon_from_plain(good, where="mine").types["size"].terms) == 2
    with pytest.raises(VocabularyError, match="language is 'fr', expected one of en, zh"):
        lexicon_from_plain({"language": "fr"}, where="mine")
    with pytest.raises(VocabularyError, match="mine: taste: no type of attribute; known: colour"):
        lexicon_from_plain({"language": "en", "taste": {}}, where="mine")
    lost = {"language": "en", "size": {"values": {"small": ["small"]}, "usual": ["tiny"]}}
    with pytest.raises(VocabularyError, match="mine: size: tiny in a group, but not among the values"):
        lexicon_from_plain(lost, where="mine")
