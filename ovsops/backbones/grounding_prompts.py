"""Prompts of Grounding DINO: which tokens stand for which label, by place and never by decoding.

Axes: P prompts, L labels of a prompt, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ovsops.backbones.wordpiece import BEGIN, END, SEPARATORS, STOP, WordPieces
from ovsops.errors import ShapeError, VocabularyError
from ovsops.text.label_names import LabelNames

_FRAME = 2
"""[CLS] and [SEP]."""


@dataclass(frozen=True, kw_only=True)
class GroundingPrompt:
    """One text of the detector, such as "[CLS] cat . remote control . [SEP]"."""

    token_ids: tuple[int, ...]
    spans: tuple[tuple[int, ...], ...]
    """Places of the tokens of each label."""
    labels: tuple[int, ...]
    """What the caller calls each span."""

    def token_map(self, num_tokens: int) -> Bool[Tensor, "L T"]:
        """True where a token belongs to a label."""
        tokens_of_label = torch.zeros(len(self.spans), num_tokens, dtype=torch.bool)
        for row, span in enumerate(self.spans):
            tokens_of_label[row, list(span)] = True
        return tokens_of_label


def name_prompts(
    pieces: WordPieces, names: LabelNames, *, names_per_prompt: int, max_tokens: int
) -> list[GroundingPrompt]:
    """As few prompts as hold all names, in order; at most so many names and tokens ([CLS], [SEP] included) each.

    Each phrase of colliding names is in one prompt once, under the first of its labels.
    """
    if not isinstance(names, LabelNames):
        raise VocabularyError(
            f"detector vocabulary: {names!r:.80} is of type {type(names).__name__}; give LabelNames of"
            ' ovsops.text.label_names, such as LabelNames(("cat", "dog"))'
        )
    found: list[GroundingPrompt] = []
    tokens: list[int] = [BEGIN]
    spans: list[tuple[int, ...]] = []
    labels: list[int] = []

    def close() -> None:
        found.append(
            GroundingPrompt(token_ids=(*tokens, END), spans=tuple(spans), labels=tuple(labels)),
        )
        tokens[1:], spans[:], labels[:] = [], [], []

    for phrase, same in zip(names.phrases, names.names_of_phrase, strict=True):
        ids = _phrase_ids(pieces, phrase, names.names[same[0]], max_tokens=max_tokens)
        if labels and (len(labels) == names_per_prompt or len(tokens) + len(ids) + _FRAME > max_tokens):
            close()
        spans.append(tuple(range(len(tokens), len(tokens) + len(ids))))
        labels.append(same[0])
        tokens += [*ids, STOP]
    close()
    return found


def caption_prompt(
    pieces: WordPieces, caption: str, spans: Sequence[tuple[int, int]], *, max_tokens: int
) -> GroundingPrompt:
    """The caption as one prompt; label i stands for characters `spans[i]` (half-open) of the caption as given.

    A token belongs to a span when they share a character; full stops and question marks belong to none.
    """
    if not isinstance(caption, str):
        raise ShapeError(
            f"phrase grounding: the caption is of type {type(caption).__name__}; give a text (str)"
        )
    if len(spans) == 0:
        raise ShapeError("phrase grounding: no spans; give the characters (first, end) of each phrase")
    wrong = [span for span in spans if not _is_inside(span, len(caption))]
    if wrong:
        raise ShapeError(
            f"phrase grounding: span {wrong[0]!r} is not inside the caption of {len(caption)} characters; "
            "give (first, end) with first < end, counted in characters"
        )
    found = pieces(caption)
    ids = [BEGIN, *found.token_ids]
    if ids[-1] != STOP:  # what no stop closes would be read by another rule
        ids.append(STOP)
    if len(ids) + 1 > max_tokens:
        raise ShapeError(
            f"phrase grounding: the caption has {len(ids) + 1} tokens, the detector reads {max_tokens}; "
            "ground it sentence by sentence"
        )
    places = [_tokens_in(found.offsets, ids, span) for span in spans]
    empty = [span for span, tokens in zip(spans, places, strict=True) if not tokens]
    if empty:
        first, end = empty[0]
        raise ShapeError(
            f"phrase grounding: span {empty[0]} holds {caption[first:end]!r}, which is no word; "
            "give spans with letters or digits"
        )
    return GroundingPrompt(token_ids=(*ids, END), spans=tuple(places), labels=tuple(range(len(spans))))


def padded_ids(prompts: Sequence[GroundingPrompt]) -> tuple[Int[Tensor, "P T"], Bool[Tensor, "P T"]]:
    """Ids padded on the right to the longest prompt, and the mask that is true on tokens."""
    longest = max(len(prompt.token_ids) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)  # 0 is [PAD]
    is_token = torch.zeros(len(prompts), longest, dtype=torch.bool)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt.token_ids)] = torch.tensor(prompt.token_ids)
        is_token[row, : len(prompt.token_ids)] = True
    return ids, is_token


def _phrase_ids(pieces: WordPieces, phrase: str, name: str, *, max_tokens: int) -> tuple[int, ...]:
    ids = pieces(phrase).token_ids
    longest = max_tokens - _FRAME - 1
    if len(ids) > longest:
        raise VocabularyError(
            f"detector vocabulary: {name[:60]!r} has {len(ids)} tokens, a prompt has room for {longest}; "
            "a name is a short noun phrase, for a sentence use phrase grounding"
        )
    if not set(ids) - {pieces.unknown}:
        raise VocabularyError(
            f"detector vocabulary: {name!r} has no word that the detector's tokenizer knows; give the English name"
        )
    if not SEPARATORS.isdisjoint(ids):
        raise VocabularyError(
            f"detector vocabulary: {name!r} holds a sign that ends a phrase for the detector; leave it out"
        )
    return ids


def _is_inside(span: Any, num_characters: int) -> bool:
    """Whether it is two whole numbers, first and end, that hold a character or more of the caption."""
    is_pair = isinstance(span, tuple | list) and len(span) == 2 and all(isinstance(x, Integral) for x in span)
    return is_pair and 0 <= span[0] < span[1] <= num_characters


def _tokens_in(
    offsets: Sequence[tuple[int, int]], ids: Sequence[int], span: tuple[int, int]
) -> tuple[int, ...]:
    """Places in `ids`, where [CLS] comes before the first of `offsets`."""
    return tuple(
        place
        for place, (first, end) in enumerate(offsets, start=1)
        if first < span[1] and end > span[0] and ids[place] not in SEPARATORS
    )
