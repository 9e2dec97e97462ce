"""Captions that are refused, and why."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.negatives.captions import accept
from ovsops.negatives.config import REASONS


@pytest.mark.parametrize(
    ("text", "language", "expected"),
    [
        ("a red car", None, ("a red car", "en")),
        ("  a\tred\n car ", "en-GB", ("a red car", "en")),
        ("A bench made of wood. .", None, ("A bench made of wood.", "en")),
        ("a pillow made of fabric .", None, ("a pillow made of fabric.", "en")),
        ("一个红色的T恤。。", "zh-CN", ("一个红色的T恤。", "zh")),
        ("a café's red chair", None, ("a café's red chair", "en")),
        ("a red car 🚗", None, ("a red car 🚗", "en")),
        (None, None, (None, "R_NO_TEXT")),
        (["a"], None, (None, "R_NO_TEXT")),
        ("", None, (None, "R_EMPTY")),
        ("😀 😀", None, (None, "R_EMPTY")),
        ("12 34.", None, (None, "R_EMPTY")),
        ("a red car\x00", None, (None, "R_CONTROL")),
        ("a \u202ered car", None, (None, "R_CONTROL")),
        ("a \ud800 car", None, (None, "R_CONTROL")),
        ("a red\u200b car", None, (None, "R_CONTROL")),
        ("a <b>red</b> car", None, (None, "R_MARKUP")),
        ("a red car https://x.y", None, (None, "R_MARKUP")),
        ("a red &amp; blue car", None, (None, "R_MARKUP")),
        ("a {colour} car", None, (None, "R_MARKUP")),
        ("a red car 红色的车", None, (None, "R_LANGUAGE")),
        ("красная машина", None, (None, "R_LANGUAGE")),
        ("a red car", "fr", (None, "R_LANGUAGE")),
        ("a red car", 3, (None, "R_LANGUAGE")),
        ("a red car", "zh", (None, "R_LANGUAGE_MISMATCH")),
        ("红色的车", "en", (None, "R_LANGUAGE_MISMATCH")),
        ("a red car " * 10_000, None, (None, "R_TOO_LONG")),
    ],
)
def test_what_is_taken(text: object, language: object, expected: tuple[str | None, str]) -> None:
    assert accept(text, language, max_chars=1000) == expected


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60), st.sampled_from([None, "en", "zh", "xx"]))
def test_any_text_gets_an_answer(text: str, language: str | None) -> None:
    caption, found = accept(text, language, max_chars=50)
    assert found in ("en", "zh") if caption is not None else found in REASONS
