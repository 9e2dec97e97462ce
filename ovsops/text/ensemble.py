"""Embeddings of sentences to one vector a class. Axes: S sentences, T templates, D channels, C classes.

Raw means are what Talk2DINO takes before its mapper (arXiv:2411.19331); `each` is CLIP's zero-shot recipe
(arXiv:2103.00020, section 3.1.4): unit vectors, their mean, unit again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.text.prompts import PromptEntry, PromptTable

Normalise = Literal["none", "each"]

_MIN_NORM = 1e-12


@dataclass(frozen=True, kw_only=True)
class ClassVectors:
    """What a segmenter compares patches with."""

    classes: Float[Tensor, "C D"]
    """One vector a class, in vocabulary order."""
    negatives: Float[Tensor, "M D"]
    """One vector a negative prompt, never mixed into a class."""
    negative_of: Int64[Tensor, "M"]
    """Place in the vocabulary of the class that each negative prompt belongs to."""
    background: Float[Tensor, "K D"]
    """One vector a background prompt."""


def mean_of_templates(
    embeddings: Float[Tensor, "*N T D"], normalise: Normalise = "none"
) -> Float[Tensor, "*N D"]:
    """Mean over the templates: of the raw embeddings, or (`each`) of unit embeddings and then made unit."""
    if normalise == "none":
        return embeddings.float().mean(dim=-2).to(embeddings.dtype)
    return _unit(_unit(embeddings.float()).mean(dim=-2)).to(embeddings.dtype)


def ensemble_prompts(
    embeddings: Float[Tensor, "S D"], table: PromptTable, normalise: Normalise = "none"
) -> ClassVectors:
    """One vector a class, from the embeddings of the table's sentences.

    The mean is taken in steps (templates of a prompt, prompts of a language, languages), so that a language
    with 80 templates weighs no more than one with 12. With one language and one prompt it is the plain mean
    over the templates. Raises `ShapeError` when there is not one embedding a sentence.
    """
    if embeddings.shape[0] != len(table.sentences):
        raise ShapeError(
            f"{embeddings.shape[0]} embeddings for {len(table.sentences)} sentences:"
            " encode table.sentences in order"
        )
    sentences = embeddings.float() if normalise == "none" else _unit(embeddings.float())
    classes = [_class_vector(sentences, entries) for entries in table.of_class]
    negatives = table.of_role("negative")

    def stack(vectors: Sequence[Tensor]) -> Tensor:
        stacked = torch.stack(tuple(vectors)) if vectors else sentences.new_zeros(0, sentences.shape[1])
        return (stacked if normalise == "none" else _unit(stacked)).to(embeddings.dtype)

    return ClassVectors(
        classes=stack(classes),
        negatives=stack([_prompt_vector(sentences, entry) for entry in negatives]),
        negative_of=torch.tensor(
            [entry.class_index for entry in negatives], dtype=torch.int64, device=embeddings.device
        ),
        background=stack([_prompt_vector(sentences, entry) for entry in table.of_role("background")]),
    )


def _class_vector(sentences: Float[Tensor, "S D"], entries: Sequence[PromptEntry]) -> Float[Tensor, "D"]:
    by_language: dict[str, list[Tensor]] = {}
    for entry in entries:
        by_language.setdefault(entry.language, []).append(_prompt_vector(sentences, entry))
    return torch.stack([torch.stack(vectors).mean(dim=0) for vectors in by_language.values()]).mean(dim=0)


def _prompt_vector(sentences: Float[Tensor, "S D"], entry: PromptEntry) -> Float[Tensor, "D"]:
    return sentences[list(entry.sentences)].mean(dim=0)


def _unit(vectors: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(_MIN_NORM)
