"""Prompts: spans by place, packing within the token limit, captions by characters."""

from pathlib import Path

import pytest
import torch
from transformers.models.mm_grounding_dino.modeling_mm_grounding_dino import build_label_maps

from ovsops.backbones.grounding_prompts import GroundingPrompt, caption_prompt, name_prompts, padded_ids
from ovsops.backbones.untrained_llmdet import write_wordpiece_tokenizer
from ovsops.backbones.wordpiece import BEGIN, END, STOP, WordPieces
from ovsops.errors import CheckpointError, ShapeError, VocabularyError
from ovsops.text.label_names import LabelNames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("wordpiece")
    write_wordpiece_tokenizer(place)
    return place


@pytest.fixture(scope="module")
def pieces(folder: Path) -> WordPieces:
    return WordPieces(folder)


def packed(
    pieces: WordPieces, *names: str, names_per_prompt: int = 40, max_tokens: int = 256
) -> list[GroundingPrompt]:
    return name_prompts(pieces, LabelNames(names), names_per_prompt=names_per_prompt, max_tokens=max_tokens)


def test_a_prompt_is_the_tokenized_text_with_its_spans(pieces: WordPieces) -> None:
    (prompt,) = packed(pieces, "cat", "Red_Car (toy)", "dog")
    expected = pieces.tokenizer.encode(
        "cat. red car. dog."
    ).ids  # the words between full stops, as transformers joins them
    assert list(prompt.token_ids) == expected
    assert prompt.spans == ((1, 2, 3), (5, 6, 7, 8, 9, 10), (12, 13, 14))
    assert prompt.labels == (0, 1, 2)


def test_spans_are_those_that_transformers_finds_between_the_separators(pieces: WordPieces) -> None:
    (prompt,) = packed(pieces, "cat", "red car", "jack-o'-lantern", "x")
    ids, _ = padded_ids([prompt])
    (theirs,) = build_label_maps(torch.zeros(1, 5, 256), ids)
    assert torch.equal(prompt.token_map(256), theirs.bool())


def test_prompts_hold_every_name_once_within_both_limits(pieces: WordPieces) -> None:
    names = [f"thing number {number}" for number in range(1203)]
    prompts = packed(pieces, *names)
    assert [label for prompt in prompts for label in prompt.labels] == list(range(1203))
    assert max(len(prompt.token_ids) for prompt in prompts) <= 256
    assert max(len(prompt.labels) for prompt in prompts) <= 40
    few = packed(pieces, *(f"t{number}" for number in range(85)))
    assert [len(prompt.labels) for prompt in few] == [40, 40, 5]
    for prompt in prompts:
        assert (prompt.token_ids[0], prompt.token_ids[-2], prompt.token_ids[-1]) == (BEGIN, STOP, END)
        assert prompt.token_ids.count(STOP) == len(prompt.labels)


def test_a_prompt_may_be_full_to_the_last_token(pieces: WordPieces) -> None:
    assert [len(p.token_ids) for p in packed(pieces, "abc", "def", max_tokens=10)] == [10]
    assert [len(p.token_ids) for p in packed(pieces, "abc", "def", max_tokens=9)] == [6, 6]
    assert len(packed(pieces, "a" * 7, max_tokens=10)) == 1
    with pytest.raises(VocabularyError, match="has 8 tokens, a prompt has room for 7"):
        packed(pieces, "a" * 8, max_tokens=10)


def test_colliding_names_are_one_phrase_under_the_first_label(pieces: WordPieces) -> None:
    (prompt,) = packed(pieces, "dog", "bow (weapon)", "Bow.", "cat")
    assert prompt.labels == (0, 1, 3)


def test_a_name_of_300_tokens_is_refused_by_name(pieces: WordPieces) -> None:
    long = "word " * 75
    with pytest.raises(VocabularyError, match=r"'word word .* has 300 tokens, a prompt has room for 253"):
        packed(pieces, "cat", long)


def test_a_name_that_the_tokenizer_does_not_know_is_refused(pieces: WordPieces) -> None:
    with pytest.raises(VocabularyError, match=r"'猫' has no word that the detector's tokenizer knows"):
        packed(pieces, "cat", "猫")


def test_a_caption_by_characters(pieces: WordPieces) -> None:
    caption = "A cat sits. Red car"
    prompt = caption_prompt(pieces, caption, [(2, 5), (12, 19), (0, 11)], max_tokens=256)
    assert list(prompt.token_ids) == pieces.tokenizer.encode("a cat sits. red car.").ids
    letters = [
        "".join(pieces.tokenizer.id_to_token(prompt.token_ids[place]).removeprefix("##") for place in span)
        for span in prompt.spans
    ]
    assert letters == ["cat", "redcar", "acatsits"]  # the full stop belongs to no span
    assert prompt.labels == (0, 1, 2)
    closed = caption_prompt(pieces, caption + ".", [(2, 5)], max_tokens=256)
    assert closed.token_ids == prompt.token_ids


def test_offsets_survive_accents_and_signs_in_front(pieces: WordPieces) -> None:
    caption = "É — café, cat"
    prompt = caption_prompt(pieces, caption, [(10, 13)], max_tokens=256)
    assert [pieces.tokenizer.id_to_token(prompt.token_ids[place]) for place in prompt.spans[0]] == [
        "c",
        "##a",
        "##t",
    ]


@pytest.mark.parametrize(
    ("caption", "spans", "message"),
    [
        ("a cat", [], "no spans"),
        ("a cat", [(2, 9)], r"span \(2, 9\) is not inside the caption of 5 characters"),
        ("a cat", [(3, 3)], r"span \(3, 3\) is not inside"),
        ("a cat", [(-1, 3)], r"span \(-1, 3\) is not inside"),
        ("a  cat.", [(1, 3)], r"holds '  ', which is no word"),
        ("a cat.", [(5, 6)], r"holds '.', which is no word"),
        ("cat " * 100, [(0, 3)], "has 303 tokens, the detector reads 256; ground it sentence by sentence"),
    ],
)
def test_captions_that_cannot_be_grounded(
    pieces: WordPieces, caption: str, spans: list[tuple[int, int]], message: str
) -> None:
    with pytest.raises(ShapeError, match=message):
        caption_prompt(pieces, caption, spans, max_tokens=256)


def test_padding_is_masked(pieces: WordPieces) -> None:
    first, second = packed(pieces, "cat", "a", names_per_prompt=1)
    ids, is_token = padded_ids([first, second])
    assert ids.shape == (2, 6)
    assert is_token.sum(dim=1).tolist() == [6, 4]
    assert ids[1].tolist() == [*second.token_ids, 0, 0]


def test_another_tokenizer_is_refused(folder: Path, tmp_path: Path) -> None:
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace('"[CLS]"', '"[XXX]"'), encoding="utf-8")
    with pytest.raises(CheckpointError, match="bert-base-uncased"):
        WordPieces(tmp_path)
