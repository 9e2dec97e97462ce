"""Prompts that a text tower does not read to their end: counted and named once, before they are encoded.

The tokenizers cut without a word, as the towers' own do; a training may meet such captions in every batch, and says
nothing. Who labels by a vocabulary is told, whether its vectors are computed or come from a cache.
"""

import logging
from collections.abc import Sequence

from ovsops.backbones.checkpoint import ResolvedCheckpoint, read_config
from ovsops.backbones.shapes import sam3_shape, text_shape
from ovsops.backbones.tokenizers import ClipTokenizer, SiglipTokenizer

logger = logging.getLogger(__name__)


def warn_of_long_prompts(checkpoint: ResolvedCheckpoint, prompts: Sequence[str]) -> None:
    """Log one warning with the number of prompts that the checkpoint's text tower cuts, and the first of them.

    `checkpoint` is CLIP, SigLIP, SigLIP 2 or SAM 3.
    """
    cut = long_prompts(checkpoint, prompts)
    if cut:
        logger.warning(
            "text tower of %s: %d of %d prompts are longer than the %d tokens that it reads and are cut, the first is"
            " %r; what stands behind the cut does not count: shorten names or templates",
            checkpoint.source,
            len(cut),
            len(prompts),
            _length(checkpoint),
            cut[0],
        )


def long_prompts(checkpoint: ResolvedCheckpoint, prompts: Sequence[str]) -> list[str]:
    """Prompts of more tokens than the tower reads, in order."""
    length = _length(checkpoint)
    doubtful = [p for p in prompts if not p.isascii() or len(p) >= length - ClipTokenizer.num_specials]
    if not doubtful:
        return []  # an ASCII character is one token at most: the tokenizer, up to 34 MB, need not be read
    is_siglip = str(read_config(checkpoint).get("model_type")).startswith("siglip")
    tokenizer = (SiglipTokenizer if is_siglip else ClipTokenizer)(checkpoint.folder, length=length)
    numbers = tokenizer.count(doubtful)
    return [prompt for prompt, number in zip(doubtful, numbers, strict=True) if number > length]


def _length(checkpoint: ResolvedCheckpoint) -> int:
    if str(read_config(checkpoint).get("model_type")).startswith("sam3"):
        return sam3_shape(checkpoint).text_length
    return text_shape(checkpoint).length
