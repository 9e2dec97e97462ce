import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ovsops.regions.caption_text import Clause, clean_caption, join_clauses, split_clauses


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("a red ball", ["a red ball"]),
        ("A red ball, on grass.", ["A red ball", "on grass"]),
        ("a red ball with a white stripe on grass", ["a red ball", "with a white stripe", "on grass"]),
        ("a black and white ball", ["a black and white ball"]),
        ("a red ball and a blue box", ["a red ball", "a blue box"]),
        (
            "a mug which is made of glass; it is 2.5 cm high",
            ["a mug", "which is", "made of glass", "it is 2.5 cm high"],
        ),
        ("  ,. ;", []),
        ("", []),
    ],
)
def test_english_clauses(text: str, clauses: list[str]) -> None:
    assert [clause.text for clause in split_clauses(text, "en")] == clauses


@pytest.mark.parametrize(
    ("text", "clauses"),
    [
        ("红色的球", ["红色的球"]),
        ("红色的球，带有白色条纹。", ["红色的球", "带有白色条纹"]),
        ("红色的球和蓝色的盒子", ["红色的球", "蓝色的盒子"]),
        ("红色和白色的球", ["红色和白色的球"]),
        ("红色、白色的球", ["红色、白色的球"]),
        ("一个杯子，并且是透明的；放在木板上", ["一个杯子", "并且是透明的", "放在木板上"]),
        ("。，！", []),
    ],
)
def test_chinese_clauses(text: str, clauses: list[str]) -> None:
    assert [clause.text for clause in split_clauses(text, "zh")] == clauses


@pytest.mark.parametrize(
    ("text", "language"),
    [("a red ball, with a stripe and a dot on grass", "en"), ("红色的球和蓝色的盒子，放在草地上", "zh")],
)
def test_all_clauses_joined_are_the_text_again(text: str, language: str) -> None:
    clauses = split_clauses(text, language)
    assert join_clauses(clauses, language) == text.replace("和", "和")
    assert join_clauses(clauses[1:], language).startswith(clauses[1].text)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=80), st.sampled_from(["en", "zh"]))
def test_any_text_is_split_without_losing_a_word(text: str, language: str) -> None:
    clauses = split_clauses(text, language)
    assert all(clause.text.strip() for clause in clauses)
    assert (
        "".join("".join(clause.text.split()) for clause in clauses) in "".join(text.split())
        or len(clauses) > 1
    )
    joined = join_clauses(clauses, language)
    assert all(clause.text in joined for clause in clauses)


def test_hostile_text_becomes_one_plain_line() -> None:
    found = clean_caption("<b>red</b>\x00 ball\n\n\u202e<script>alert(1)</script> \u200bon \ue000grass")
    assert found.text == "red ball alert(1) on grass"
    assert found.num_removed > 20
    assert not found.is_cut


def test_angle_brackets_never_stay() -> None:
    assert "<" not in clean_caption("<<b>> a < b " + "<" * 500).text


def test_a_megabyte_is_cut_between_words() -> None:
    found = clean_caption("red ball " * 120_000)
    assert found.is_cut
    assert len(found.text) <= 600
    assert found.text.endswith(("red", "ball"))
    assert len(clean_caption("红" * 10**6).text) == 600


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=300), st.integers(1, 50))
def test_cleaning_again_changes_nothing(text: str, most: int) -> None:
    once = clean_caption(text, max_chars=most)
    again = clean_caption(once.text, max_chars=most)
    assert again.text == once.text
    assert len(once.text) <= most
    assert once.text.isprintable()


def test_a_clause_in_front_loses_what_led_to_it() -> None:
    clauses = [Clause(lead=", ", text="on grass"), Clause(lead=" ", text="with a dot")]
    assert join_clauses(clauses, "en") == "on grass with a dot"
