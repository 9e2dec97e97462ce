"""Faults of foreign negatives."""

import pytest

from ovsops.negatives.check import set_faults, text_faults

GOOD = [f"a {colour} car" for colour in "blue green black white grey pink brown purple yellow orange".split()]


def test_a_good_set_has_no_fault() -> None:
    good = [text.replace("a orange", "an orange") for text in GOOD]
    assert set_faults("a red car", good) == []


def test_faults_of_sets() -> None:
    assert [fault for fault, _ in set_faults("a red car", GOOD[:9])] == ["F_COUNT"]
    assert ("F_DUPLICATE", "A Blue, car.") in set_faults("a red car", [*GOOD[:9], "A Blue, car."])
    assert ("F_POSITIVE", "A red car.") in set_faults("a red car", [*GOOD[:9], "A red car."])


@pytest.mark.parametrize(
    ("positive", "text", "expected"),
    [
        ("a red car", "a orange car", ["F_ARTICLE"]),
        ("a red car", "an blue car", ["F_ARTICLE"]),
        ("a orange car with a rim", "a orange bus with a rim", []),
        ("a red one", "a one", []),
        ("a bench", "a bench. .", ["F_MARKS"]),
        ("a white bag", "a white white bag", ["F_DOUBLED"]),
        ("a car", "...", ["F_EMPTY"]),
        ("a car", "a\u202e car", ["F_CONTROL"]),
        ("红色的车", "蓝色的车。。", ["F_MARKS"]),
    ],
)
def test_faults_of_texts(positive: str, text: str, expected: list[str]) -> None:
    assert text_faults(positive, text) == expected
