"""Prompt ensembles repeat themselves: every distinct prompt is embedded once, in batches.

Axes: T prompts, D channels.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.features import TextFeatures


def embed_unique(
    prompts: Sequence[str],
    embed: Callable[[Sequence[str]], Float[Tensor, "T D"]],
    *,
    batch_size: int,
    length: Callable[[str], int] | None = None,
) -> TextFeatures:
    """Embeddings of `prompts` in order, from one pass over the distinct ones.

    With `length` given, prompts of like length share a batch, for towers that may be cut to the longest.
    """
    if not prompts:
        raise ShapeError("no prompts to embed; a text tower's width is not known without one")
    distinct = list(dict.fromkeys(prompts))
    if length is not None:
        distinct.sort(key=length)
    batches = [distinct[i : i + batch_size] for i in range(0, len(distinct), batch_size)]
    embedded = torch.cat([embed(batch) for batch in batches])
    place = {prompt: i for i, prompt in enumerate(distinct)}
    rows = torch.tensor([place[prompt] for prompt in prompts], device=embedded.device)
    return TextFeatures(prompts=tuple(prompts), embeddings=embedded[rows])
