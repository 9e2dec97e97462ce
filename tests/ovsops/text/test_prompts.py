"""Prompt tables: every sentence once, every class found again."""

import pytest

from ovsops.errors import VocabularyError
from ovsops.text.prompts import PromptTable, class_prompts
from ovsops.text.vocabulary import ClassSpec, Vocabulary

CAT = ClassSpec(
    id=3, name="cat", prompts={"en": ("cat", "kitten"), "zh": ("猫",)}, negative_prompts={"en": ("fox",)}
)
DOG = ClassSpec(id=7, name="dog", prompts={"zh": ("狗",)}, negative_prompts={"zh": ("猫",)})
FOX = ClassSpec(id=8, name="fox")
ZOO = Vocabulary(
    name="zoo",
    languages=("en", "zh"),
    classes=(CAT, DOG, FOX),
    templates={"en": ("a {}.", "the {}."), "zh": ("{}的照片。",)},
    background={"en": ("background",)},
)


def sentences_of(table: PromptTable, class_id: int, role: str = "class") -> list[str]:
    return [
        table.sentences[i]
        for entry in table.entries
        if entry.class_id == class_id and entry.role == role
        for i in entry.sentences
    ]


def test_both_languages_fill_their_own_templates() -> None:
    table = class_prompts(ZOO, ("en", "zh"))
    assert sentences_of(table, 3) == ["a cat.", "the cat.", "a kitten.", "the kitten.", "猫的照片。"]
    assert sentences_of(table, 7) == ["a dog.", "the dog.", "狗的照片。"]
    assert sentences_of(table, 7, "negative") == ["猫的照片。"]
    assert sentences_of(table, 0, "background") == ["a background.", "the background."]


def test_a_sentence_is_there_once_however_often_it_is_used() -> None:
    table = class_prompts(ZOO, ("en", "zh"))
    assert len(set(table.sentences)) == len(table.sentences) == 12
    # "a fox." is the class fox and what a cat is not: one sentence, two entries.
    assert sentences_of(table, 8) == sentences_of(table, 3, "negative") == ["a fox.", "the fox."]


def test_entries_follow_the_vocabulary_and_keep_ids() -> None:
    one, other = class_prompts(ZOO, ("en",)), class_prompts(ZOO, ("en", "zh"))
    for table in (one, other):
        assert [entries[0].class_id for entries in table.of_class] == [3, 7, 8]
        assert [entries[0].class_index for entries in table.of_class] == [0, 1, 2]


def test_no_languages_named_means_all() -> None:
    assert class_prompts(ZOO) == class_prompts(ZOO, ("en", "zh"))


def test_a_class_without_a_prompt_in_the_languages_asked_for() -> None:
    with pytest.raises(
        VocabularyError, match="class 8 'fox' has no prompt in zh; add one, or ask for en too"
    ):
        class_prompts(ZOO, ("zh",))


@pytest.mark.parametrize(
    ("languages", "message"),
    [(("de",), "has no language 'de'; it has en, zh"), ((), "at least one"), (("en", "en"), "none twice")],
)
def test_languages_that_make_no_sense(languages: tuple[str, ...], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        class_prompts(ZOO, languages)


def test_two_classes_with_equal_prompts_are_refused() -> None:
    twins = Vocabulary(
        name="twins",
        languages=("en",),
        classes=(ClassSpec(id=1, name="mouse"), ClassSpec(id=2, name="pointer", prompts={"en": ("mouse",)})),
    )
    with pytest.raises(
        VocabularyError, match="classes 1 'mouse' and 2 'pointer' have the same prompts in en"
    ):
        class_prompts(twins)


def test_a_sentence_over_256_characters_is_refused() -> None:
    def table(length: int) -> PromptTable:
        spec = ClassSpec(id=4, name="x", prompts={"en": ("a" * length,)})
        sentence = "b" * 100 + "{}"
        return class_prompts(
            Vocabulary(name="v", languages=("en",), classes=(spec,), templates={"en": (sentence,)})
        )

    assert len(table(156).sentences[0]) == 256
    with pytest.raises(VocabularyError, match="class id 4 makes a sentence of 257 characters, at most 256"):
        table(157)
