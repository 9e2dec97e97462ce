"""Which names a step asks for."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch

from ovsops.backbones.miniature import write_bert_tokenizer
from ovsops.backbones.wordpiece import WordPieces
from ovsops.miniature.attributes import COLOURS, LANGUAGES, NOUNS, STUFF
from ovsops.miniature.words import WORDS
from ovsops.training.detector_prompts import AskedNames, draw_names
from ovsops.training.scenes import ABSENT

BARE = {word.in_language(language) for language in LANGUAGES for word in (*NOUNS, *STUFF)}


def drawn(count: int, *, partial_share: float = 0.0, attribute_share: float = 0.0) -> list[AskedNames]:
    generator = torch.Generator().manual_seed(0)
    return [
        draw_names(partial_share=partial_share, attribute_share=attribute_share, generator=generator)
        for _ in range(count)
    ]


def test_all_nouns_in_random_order_in_one_language() -> None:
    nouns = [{noun.in_language(language) for noun in NOUNS} for language in LANGUAGES]
    found = drawn(40)
    assert all(set(names.phrases) in nouns for names in found)
    assert {nouns.index(set(names.phrases)) for names in found} == {0, 1}
    assert all(a.classes.tolist() != b.classes.tolist() for a, b in pairwise(found))
    for names in found:
        for phrase, place in zip(names.phrases, names.classes.tolist(), strict=True):
            assert phrase in (NOUNS[place].en, NOUNS[place].zh)


def test_partial_prompts_ask_for_some_nouns_and_for_stuff() -> None:
    found = drawn(200, partial_share=1.0)
    nouns = [int((names.classes < len(NOUNS)).sum()) for names in found]
    stuff = [int((names.classes >= len(NOUNS)).sum()) for names in found]
    assert (min(nouns), max(nouns), min(stuff), max(stuff)) == (3, 12, 0, 4)
    for names in found[:20]:
        for phrase, place in zip(names.phrases, names.classes.tolist(), strict=True):
            word = (*NOUNS, *STUFF)[place]
            assert phrase in (word.en, word.zh)


def test_attributes_hang_on_nouns_by_chance() -> None:
    """Every colour with every noun, whatever is in the pictures; the class is the noun's."""
    found = drawn(250, attribute_share=1.0)
    colours = Counter(
        (colour.name, place)
        for names in found
        for phrase, place in zip(names.phrases, names.classes.tolist(), strict=True)
        for colour in COLOURS
        if colour.en in phrase.split()
    )
    assert len(colours) == len(COLOURS) * len(NOUNS)
    assert max(colours.values()) < 30 * min(colours.values())
    for names in found:
        assert len(set(names.phrases)) == len(names.phrases)
        for phrase, place in zip(names.phrases, names.classes.tolist(), strict=True):
            assert phrase.endswith((NOUNS[place].en, NOUNS[place].zh))
    assert any(len(set(names.classes.tolist())) < len(names.classes) for names in found)  # a noun twice
    assert {phrase in BARE for names in found for phrase in names.phrases} == {False, True}


def test_names_are_true_of_their_noun_whatever_else_they_say() -> None:
    names = AskedNames(phrases=("red ball", "grass", "blue ball"), classes=torch.tensor([0, 12, 0]))
    found = names.true_of(torch.tensor([[0, 5, ABSENT]]))
    assert found.tolist() == [[[True, False, True], [False] * 3, [False] * 3]]


def test_every_word_of_every_prompt_is_in_the_tokenizer(tmp_path: Path) -> None:
    write_bert_tokenizer(tmp_path, WORDS)
    pieces = WordPieces(tmp_path)
    for names in drawn(100, partial_share=0.5, attribute_share=0.7):
        for phrase in names.phrases:
            assert pieces.unknown not in pieces(phrase).token_ids, phrase
