"""Prompt ensembles repeat themselves: every distinct prompt is embedded once, in batches.

Axes: T prompts, D channels.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.features import TextFeatures


def embed_unique(
    prompts: Sequence[str],
    embed: Callable[[Sequence[str]], Float[Tensor, "T D"]],
    *,
    batch_size: int,
    length: Callable[[str], int] | None = None,
) -> TextFeatures:
    """Embeddings of `prompts` in order, from one pass over the distinct ones.

    With `length` given, prompts of like length share a batch, for towers that may be cut to the longest. No prompts are
    a `ShapeError`.
    """
    check_prompts(prompts)
    if len(prompts) == 0:
        raise ShapeError("no prompts to embed; a text tower's width is not known without one")
    if batch_size < 1:
        raise ConfigError(f"prompts: batch_size is {batch_size}; give 1 or more")
    distinct = list(dict.fromkeys(prompts))
    if length is not None:
        distinct.sort(key=length)
    batches = [distinct[i : i + batch_size] for i in range(0, len(distinct), batch_size)]
    embedded = torch.cat([embed(batch) for batch in batches])
    place = {prompt: i for i, prompt in enumerate(distinct)}
    rows = torch.tensor([place[prompt] for prompt in prompts], device=embedded.device)
    return TextFeatures(prompts=tuple(prompts), embeddings=embedded[rows])


def check_prompts(prompts: Any) -> None:
    """Raise `ShapeError` unless these are texts in a row. One string is no row: its letters would be the prompts."""
    if isinstance(prompts, str | bytes) or not isinstance(prompts, Collection):
        raise ShapeError(
            f"prompts: {prompts!r:.80} is of type {type(prompts).__name__}; a list of texts is expected, [text] for a"
            " single one"
        )
    for place, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise ShapeError(
                f"prompts: number {place} of {len(prompts)}, {prompt!r:.80}, is of type {type(prompt).__name__}; every"
                " prompt is a text (str)"
            )
