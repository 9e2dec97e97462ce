"""What was made quick says what the slow and plain form says."""

import re
import unicodedata
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ovsops.negatives.check import _AN_EXCEPTION, _ARTICLE, _DOUBLED, text_faults
from ovsops.negatives.claims import Claim, Said
from ovsops.negatives.validators import LabelRules, LabelValidator

CLAIMS = st.lists(
    st.builds(
        Claim,
        st.sampled_from(("colour", "object")),
        st.sampled_from(("red", "ball", "wood")),
        st.sampled_from(("", "lid")),
    ),
    max_size=7,
)
WORDS = st.frozensets(st.sampled_from(("old", "odd", "red")))


def said(claims: list[Claim], words: frozenset[str], more: frozenset[str]) -> Said:
    return Said(language="en", listed=tuple(claims), words=words, all_words=words | more)


@given(CLAIMS, CLAIMS, WORDS, WORDS, WORDS)
def test_claims_are_compared_as_often_as_they_are_made(
    own: list[Claim], others: list[Claim], words: frozenset[str], known: frozenset[str], more: frozenset[str]
) -> None:
    one, other = said(own, words, frozenset()), said(others, known, more)
    beyond = list(Counter(own) - Counter(others))
    assert one.beyond(other) == beyond
    assert one.is_said_in(other) == (not beyond and words <= known | more)


FORMS = ("car", "race car", "sports car", "bus", "t恤", "t", "树", "树叶", "tv", "bus stop", "s")
TEXTS = st.lists(
    st.sampled_from(
        (*FORMS, " ", "-", "s", "es", "cars", "buses", "a", "红", "CAR", ",", "race", "_", "x", "tv's")
    ),
    max_size=9,
).map("".join)


@given(TEXTS, st.sets(st.sampled_from(FORMS), min_size=1))
def test_names_of_classes_are_found_as_by_trying_each_form(text: str, forms: set[str]) -> None:
    rules = LabelRules(names={form: f"class {form}" for form in forms})
    plain = [
        re.escape(form)
        if re.search("[\u3400-\u9fff]", form)
        else rf"(?<![\w-]){re.escape(form)}(?:s|es)?(?![\w-])"
        for form in sorted(forms, key=lambda form: (-len(form), form))
    ]
    expected = set()
    for match in re.finditer("|".join(plain), text.lower()):
        found = match.group()
        name = next((form for form in (found, found[:-1], found[:-2]) if form in forms), None)
        expected |= {f"class {name}"} if name is not None else set()
    assert LabelValidator(rules)._find(text) == expected


PHRASES = st.lists(
    st.sampled_from(
        "a an one eu apple hour red red-red x A An the . .. , \u200b \u00a0 \u2028 \t é 红 1".split(" ")
    ),
    max_size=8,
).map(" ".join)


@given(PHRASES, PHRASES)
def test_faults_are_those_of_the_plain_form(positive: str, text: str) -> None:
    def wrong(each: str) -> int:
        return len(_ARTICLE.findall(each)) - len(_AN_EXCEPTION.findall(each))

    found = text_faults(positive, text)
    if not any(char.isalpha() for char in text):
        assert found == ["F_EMPTY"]
        return
    assert ("F_CONTROL" in found) == any(unicodedata.category(char)[0] == "C" for char in text)
    assert ("F_ARTICLE" in found) == (wrong(text) > wrong(positive))
    assert ("F_DOUBLED" in found) == (len(_DOUBLED.findall(text)) > len(_DOUBLED.findall(positive)))
