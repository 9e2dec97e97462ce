"""Captions of other things: the easiest negatives."""

from collections.abc import Sequence

import numpy as np

from ovsops.negatives.config import NUM_NEGATIVES
from ovsops.negatives.lexicon import Lexicon
from ovsops.negatives.phrase import Phrase, Slot

_TRIES = 400


class OtherCaptions:
    """Captions of a corpus whose thing is known; each is drawn as often as the corpus has it."""

    def __init__(self, phrases: Sequence[Phrase], lexicon: Lexicon) -> None:
        self.lexicon = lexicon
        self.captions = [
            (phrase.text, slot) for phrase in phrases if (slot := _object_of(phrase)) is not None
        ]

    def drawn(self, phrase: Phrase, generator: np.random.Generator, count: int = NUM_NEGATIVES) -> list[str]:
        """Distinct captions of things that the phrase is surely not about, or fewer where there are no more."""
        chosen: dict[str, None] = {}
        if self.captions:
            for place in generator.integers(len(self.captions), size=_TRIES).tolist():
                text, slot = self.captions[place]
                if self._is_other(phrase, slot.term) and text.lower() not in chosen:
                    chosen[text.lower()] = None
                    if len(chosen) == count:
                        break
        by_lower = {text.lower(): text for text, _ in self.captions} if chosen else {}
        texts = [by_lower[text] for text in chosen]
        return texts if len(texts) == count else self._made(phrase, texts, generator, count)

    def _is_other(self, phrase: Phrase, term: int) -> bool:
        kind = self.lexicon.types["object"]
        own = _object_of(phrase)
        if own is not None:
            return bool(kind.may_replace[own.term, term])
        return all(
            kind.terms[t].surface not in phrase.text.lower()
            for t in range(len(kind.terms))
            if t == term or not kind.may_replace[t, term]
        )

    def _made(
        self, phrase: Phrase, texts: list[str], generator: np.random.Generator, count: int
    ) -> list[str]:
        """Where the corpus is too small: a colour and a thing, as frequent as the lexicon expects them."""
        colours, objects = self.lexicon.types["colour"], self.lexicon.types["object"]
        made = dict.fromkeys(texts)
        for _ in range(_TRIES):
            if len(made) == count:
                break
            term = int(generator.choice(len(objects.terms), p=objects.expected / objects.expected.sum()))
            colour = int(generator.choice(len(colours.terms), p=colours.expected / colours.expected.sum()))
            if self._is_other(phrase, term) and not any(role[0] == "p" for role in objects.terms[term].roles):
                made.setdefault(
                    self._said(colours.terms[colour].surface, objects.terms[term].surface, phrase.text)
                )
        return list(made)

    def _said(self, colour: str, thing: str, like: str) -> str:
        if self.lexicon.language == "zh":
            return f"{colour}的{thing}" + ("。" if like.endswith("。") else "")
        text = f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"
        return (
            (text[0].upper() if like[:1].isupper() else text[0])
            + text[1:]
            + ("." if like.endswith(".") else "")
        )


def _object_of(phrase: Phrase) -> Slot | None:
    return next((slot for slot in phrase.slots if slot.type == "object"), None)
