"""Names as a detector reads them: cleaned, never lost."""

import pytest

from ovsops.errors import VocabularyError
from ovsops.text.label_names import LabelNames, detector_phrase


@pytest.mark.parametrize(
    ("name", "phrase"),
    [
        ("cat", "cat"),
        ("Remote  Control ", "remote control"),
        ("bow_(decorative_ribbons)", "bow"),
        ("bow (weapon)", "bow"),
        ("st. bernard", "st bernard"),
        ("St.Bernard", "st bernard"),
        ("(unknown)", "unknown"),  # nothing is left outside: the words inside stay
        ("a (b (c) d) e", "a e"),
        ("cup (half", "cup half"),
        ("[SEP] trick?", "sep trick"),
        ("pan（cooking）", "pan"),
        ("jack-o'-lantern, lit", "jack-o'-lantern, lit"),
        ("café", "café"),
        ("cafe\u0301", "café"),
        ("...", ""),
        ("()", ""),
    ],
)
def test_phrase(name: str, phrase: str) -> None:
    assert detector_phrase(name) == phrase


def test_a_cleaned_phrase_stays_as_it_is() -> None:
    for name in ("bow_(decorative_ribbons)", "St. Bernard", "Remote Control"):
        assert detector_phrase(detector_phrase(name)) == detector_phrase(name)


def test_names_that_collide_share_a_phrase_and_keep_their_places() -> None:
    names = LabelNames(("bow_(weapon)", "cat", "bow (decorative ribbons)", "Cat.", "dog"))
    assert names.phrases == ("bow", "cat", "dog")
    assert names.names_of_phrase == ((0, 2), (1, 3), (4,))
    assert names.collisions == (("bow_(weapon)", "bow (decorative ribbons)"), ("cat", "Cat."))
    assert len(names) == 5
    assert LabelNames(("cat", "dog")).collisions == ()


def test_an_empty_vocabulary_is_refused() -> None:
    with pytest.raises(VocabularyError, match="it is empty; give one name or more"):
        LabelNames(())


@pytest.mark.parametrize("name", ["", "  ", "...", "()", "?"])
def test_a_name_without_a_word_is_refused_by_name(name: str) -> None:
    with pytest.raises(VocabularyError, match="has no word left"):
        LabelNames(("cat", name))
