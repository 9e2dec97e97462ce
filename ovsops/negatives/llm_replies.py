"""A language model's negatives as candidates. Its words are data: measured before they are parsed, and never trusted.

An answer of another shape or number is refused as a whole (`ReplyError`); a text that is no plain caption is
left out, with the reason of `captions.accept`. Whether what is left is false is for the validators.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ovsops.errors import RowError
from ovsops.negatives.candidates import CandidateNegatives, Source
from ovsops.negatives.captions import accept
from ovsops.negatives.claims import said_by
from ovsops.negatives.lexicon import ATTRIBUTE_TYPES, Language
from ovsops.negatives.llm_requests import LlmConfig
from ovsops.text.chat import reply_value

REPLY_FAULTS: dict[str, str] = {
    "L_TOO_LONG": "an answer beyond `max_reply_chars`",
    "L_NOT_JSON": "an answer that is no JSON, names a field twice, or is nested too deeply",
    "L_SHAPE": "JSON of another shape than was asked for",
    "L_COUNT": "another number of negatives than was asked for",
}
"""Why an answer is refused as a whole."""
_END_MARKS = ".!?。！？"


class ReplyError(RowError):
    """An answer that cannot be used; `code` is a key of `REPLY_FAULTS`."""


@dataclass(frozen=True, kw_only=True)
class LlmReply:
    """What is taken of an answer."""

    candidates: CandidateNegatives
    refused: Counter[str]
    """Texts that are no plain captions, by the codes of `config.REASONS`."""


def parse_reply(reply: str, *, key: str, positive: str, language: Language, config: LlmConfig) -> LlmReply:
    """The candidates of an answer about the caption `positive`; `ReplyError` where it is refused.

    Capitals and marks at the ends follow the caption, so that they give nothing away.
    """
    entries = _entries(reply, config)
    texts: list[str] = []
    types: list[str] = []
    source: Source = "llm"
    refused: Counter[str] = Counter()
    for text, kind in entries:
        caption, found = accept(text, language, max_chars=config.max_chars)
        if caption is None:
            refused[str(found)] += 1
            continue
        dressed = _dressed(caption, positive)
        texts.append(dressed)
        types.append(changed_types(positive, dressed) or kind)
    return LlmReply(
        candidates=CandidateNegatives(
            key=key,
            positive=positive,
            language=language,
            texts=tuple(texts),
            types=tuple(types),
            sources=(source,) * len(texts),
        ),
        refused=refused,
    )


def changed_types(positive: str, negative: str) -> str:
    """What the lexicon sees changed: `colour`, `colour+material`; empty where it sees nothing."""
    one, other = said_by(positive), said_by(negative)
    if one is None or other is None:
        return ""
    kinds = {claim.type for claim in other.claims - one.claims}
    return "+".join(kind for kind in ATTRIBUTE_TYPES if kind in kinds)


def _entries(reply: str, config: LlmConfig) -> list[tuple[str, str]]:
    """Texts and types of an answer of the right shape and number."""
    if len(reply) > config.max_reply_chars:
        raise ReplyError(
            "L_TOO_LONG", f"the answer has {len(reply)} characters, more than {config.max_reply_chars}"
        )
    try:
        found: Any = reply_value(reply)
    except ValueError as error:
        raise ReplyError("L_NOT_JSON", f"the answer is no JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict) or set(found) != {"negatives"} or not isinstance(found["negatives"], list):
        raise ReplyError("L_SHAPE", "the answer must be an object with the list `negatives` and nothing else")
    entries = []
    for place, entry in enumerate(found["negatives"]):
        if not isinstance(entry, dict) or set(entry) != {"text", "type"}:
            raise ReplyError("L_SHAPE", f"negatives[{place}] must be an object with text and type alone")
        if not isinstance(entry["text"], str) or entry["type"] not in ATTRIBUTE_TYPES:
            raise ReplyError(
                "L_SHAPE",
                f"negatives[{place}]: text must be a text, type one of {', '.join(ATTRIBUTE_TYPES)}",
            )
        entries.append((entry["text"], entry["type"]))
    if len(entries) != config.num_asked:
        raise ReplyError("L_COUNT", f"{len(entries)} negatives, {config.num_asked} were asked for")
    return entries


def _dressed(text: str, like: str) -> str:
    """With the first letter and the last mark of the caption."""
    text = text.rstrip(_END_MARKS + " ") or text
    if like[-1:] in _END_MARKS:
        text += like[-1]
    if not text[:1].isalpha() or not like[:1].isalpha() or text[1:2].isupper():  # TV stays TV
        return text
    return (text[0].upper() if like[0].isupper() else text[0].lower()) + text[1:]
