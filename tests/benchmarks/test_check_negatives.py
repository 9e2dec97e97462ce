"""The check of levels, by hand: it must not believe what the generator says."""

import pytest

from benchmarks.check_negatives import changed_slots
from benchmarks.sample_negatives import drawn_sample


@pytest.mark.parametrize(
    ("positive", "negative", "expected"),
    [
        ("A red bowl.", "An orange bowl.", [("colour", "colour")]),
        ("a light grey pipe", "a red pipe", [("colour", "colour")]),
        ("a red bowl", "a metal bowl", [("colour", "material")]),
        ("a red bowl", "a red trash can", [("object", "object")]),
        ("a transparent glass.", "a transparent bowl.", [("object", "object")]),
        ("a bowl made of glass", "a bowl made of metal", [("material", "material")]),
        ("a glass bowl", "a metal bowl", [("material", "material")]),
        ("a red wooden cup", "a blue metal cup", [("colour", "colour"), ("material", "material")]),
        ("a red cup", "a red cup", []),
        ("a red cup", "a red shiny cup", None),
    ],
)
def test_changed_slots(positive: str, negative: str, expected: list[tuple[str, str]] | None) -> None:
    assert changed_slots(positive, negative) == expected


def test_a_sample_shows_every_type_and_each_caption_once() -> None:
    rows = [
        {"text": f"a red cup no. {i}", "negatives": ["x"] * 9 + ["y"], "types": ["colour"] * 9 + ["object"]}
        for i in range(8)
    ] + [{"text": "none", "negatives": None, "types": None}]
    chosen = drawn_sample(rows, 6, 0)
    assert [kind for kind, _, _ in chosen] == ["colour", "object"] * 3
    assert len({text for _, text, _ in chosen}) == 6
    assert drawn_sample(rows, 6, 0) == chosen
    assert len(drawn_sample(rows, 50, 0)) == 8
