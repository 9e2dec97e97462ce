"""What a language model is asked for negatives: texts and the grammar of the answer. Who asks it is elsewhere.

The words are data files, `data/llm_en.yaml` and `data/llm_zh.yaml`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template
from typing import Any

from ovsops.errors import ConfigError
from ovsops.negatives.config import NUM_NEGATIVES, Level
from ovsops.negatives.lexicon import ATTRIBUTE_TYPES, Language
from ovsops.text.chat import Dialogue
from ovsops.text.fields import Fields
from ovsops.text.yaml_file import parse_yaml

_MAX_KNOWN = 8


@dataclass(frozen=True, kw_only=True)
class LlmConfig:
    """How many negatives are asked for, and what is taken of an answer. Changes what is written."""

    level: Level = "hard"
    """How many attributes each changes; trivial negatives need no model."""
    num_asked: int = 14
    """Negatives of one answer: more than ten, as some are dropped. An answer with another number is refused."""
    max_chars: int = 1000
    """Longer captions are not asked about, longer negatives are refused."""
    max_reply_chars: int = 20_000
    """A longer answer is refused unread."""

    def __post_init__(self) -> None:
        if self.level == "trivial":
            raise ConfigError(
                "llm.level is trivial: those are captions of other things; take them by rule, or ask for hard,"
                " medium or easy"
            )
        if not NUM_NEGATIVES <= self.num_asked <= 50:
            raise ConfigError(f"llm.num_asked is {self.num_asked}: {NUM_NEGATIVES} to 50 are wanted")
        if self.max_chars < 10 or self.max_reply_chars < 1000:
            raise ConfigError(
                f"llm.max_chars is {self.max_chars}, max_reply_chars {self.max_reply_chars}: at least 10 and 1000"
            )


@dataclass(frozen=True, kw_only=True)
class _Words:
    system: str
    user: Template
    changes: Mapping[str, str]


def negatives_request(
    caption: str, language: Language, config: LlmConfig, *, known: Sequence[str] = ()
) -> Dialogue:
    """Ask for negatives of a caption that `captions.accept` has taken. `known` is what else is true of the region."""
    words = _words(language)
    user = words.user.substitute(
        caption=json.dumps(caption, ensure_ascii=False),
        known=json.dumps([text[: config.max_chars] for text in known[:_MAX_KNOWN]], ensure_ascii=False),
        count=config.num_asked,
        changes=words.changes[config.level],
        types=", ".join(ATTRIBUTE_TYPES),
    )
    return Dialogue(
        system=words.system, user=user, schema_name="negatives", schema=reply_schema(config.num_asked)
    )


def reply_schema(count: int) -> dict[str, Any]:
    """The answer: so many texts, each with the type of what was changed."""
    entry = {
        "type": "object",
        "properties": {
            "text": {"type": "string"},
            "type": {"type": "string", "enum": list(ATTRIBUTE_TYPES)},
        },
        "required": ["text", "type"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"negatives": {"type": "array", "items": entry, "minItems": count, "maxItems": count}},
        "required": ["negatives"],
        "additionalProperties": False,
    }


@cache
def _words(language: Language) -> _Words:
    name = f"llm_{language}.yaml"
    text = resources.files("ovsops.negatives").joinpath("data", name).read_text(encoding="utf-8")
    fields = Fields(parse_yaml(text, where=name), where=name, known=("system", "user", "changes"))
    changes = {str(level): str(said) for level, said in fields.mapping("changes").items()}
    return _Words(system=fields.text("system"), user=Template(fields.text("user")), changes=changes)
