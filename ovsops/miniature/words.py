"""Every word, mark and Chinese character that the world's texts can hold: what its tokenizer is built from."""

from ovsops.miniature.attributes import COLOURS, MATERIALS, NOUNS, PATTERNS, SIZES, STUFF
from ovsops.miniature.captions import GLUE, split_words
from ovsops.text.templates import SLOT, load_templates

TEMPLATE_SETS: tuple[str, ...] = ("plain", "talk2dino_7", "zh_photo_12", "zh_varied_24")
"""Template sets whose words are known, too."""


def _all_words() -> tuple[str, ...]:
    texts = [
        text
        for word in (*NOUNS, *COLOURS, *PATTERNS, *MATERIALS, *SIZES, *STUFF)
        for text in (word.en, word.zh)
    ]
    texts += GLUE
    texts += [template.replace(SLOT, " ") for name in TEMPLATE_SETS for template in load_templates(name)]
    return tuple(sorted({word for text in texts for word in split_words(text)}))


WORDS: tuple[str, ...] = _all_words()
"""Sorted. English words are in lower case, Chinese characters stand alone."""
