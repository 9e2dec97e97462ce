"""Settings of negatives, and why a caption gets none."""

import math
from dataclasses import dataclass
from typing import Literal

from ovsops.errors import ConfigError

Level = Literal["hard", "medium", "easy", "trivial"]
LEVELS: tuple[Level, ...] = ("hard", "medium", "easy", "trivial")
NUM_CHANGES: dict[Level, int] = {"hard": 1, "medium": 2, "easy": 3, "trivial": 0}
"""Slots that a negative of a level changes; a trivial one is a caption of another thing."""
MAX_MARGINS: dict[Level, float] = {"hard": math.inf, "medium": 0.5, "easy": 0.5, "trivial": math.inf}
"""Nats by which a blind model may prefer a caption to its negatives. The balance alone suffices for one change; where
several values change at once, common pairs ("grey metal") leave captions faster than they can come into others."""
OBJECT_WEIGHTS: dict[Level, float] = {"hard": 1e-7, "medium": 0.1, "easy": 0.1, "trivial": 0.1}
"""Names of things beside 1 for attributes: as rare as the blind test allows (figures in this package's page)."""
NUM_NEGATIVES = 10
"""Of each caption: what the trainer of FG-CLIP 2 takes, no more and no less."""

Reason = Literal[
    "R_REVIEW",
    "R_NO_TEXT",
    "R_EMPTY",
    "R_TOO_LONG",
    "R_CONTROL",
    "R_MARKUP",
    "R_LANGUAGE",
    "R_LANGUAGE_MISMATCH",
    "R_NEGATION",
    "R_ALTERNATIVE",
    "R_NO_ATTRIBUTE",
    "R_TOO_FEW_ATTRIBUTES",
    "R_TOO_FEW_VALUES",
    "R_GIVEN_AWAY",
]
REASONS: dict[Reason, str] = {
    "R_REVIEW": "the label waits for a person, and its caption may be wrong",
    "R_NO_TEXT": "no caption, or none that is a string",
    "R_EMPTY": "a caption without a letter",
    "R_TOO_LONG": "longer than `max_chars`",
    "R_CONTROL": "control, invisible or unpaired characters",
    "R_MARKUP": "markup, a link or a placeholder instead of plain words",
    "R_LANGUAGE": "neither English nor Chinese, or both at once",
    "R_LANGUAGE_MISMATCH": "the language that was named is not the caption's",
    "R_NEGATION": "the caption says what is not so (not, never, other than): another value may be true, too",
    "R_ALTERNATIVE": "the caption leaves something open (or, a slash, maybe): another value may be true, too",
    "R_NO_ATTRIBUTE": "no attribute that is known",
    "R_TOO_FEW_ATTRIBUTES": "fewer attributes than the level changes",
    "R_TOO_FEW_VALUES": "fewer than ten distinct negatives that are surely false",
    "R_GIVEN_AWAY": "a model that sees only texts picks the caption among its negatives by more than `max_margin`",
}
"""Every reason for which a caption gets no negatives."""


@dataclass(frozen=True, kw_only=True)
class NegativeConfig:
    """How negatives are drawn. Another value anywhere draws others from the same seeds."""

    level: Level = "hard"
    seed: int = 0
    max_chars: int = 1000
    """Longer captions are refused: they are no region phrases."""
    object_weight: float | None = None
    """How likely a name of a thing is changed before balancing, beside 1 for an attribute; 0: only where attributes do
    not suffice. None: what `OBJECT_WEIGHTS` has for the level."""
    num_drawn: int = 128
    """Combinations drawn to choose ten from, where a level changes several attributes."""
    num_rounds: int = 2
    """How often combinations are drawn and weighed while the balance is found; later draws know earlier weights."""
    max_fitted: int = 4096
    """Captions of the corpus sample on which the balance is found."""
    ridge: float = 0.5
    """What keeps the weights of the balance small: captions that a unit of weight must move."""
    min_context: int = 3
    """Words that stand beside an attribute in fewer captions do not get a weight of their own."""
    max_iterations: int = 150
    """Steps of L-BFGS that find the balance."""
    max_margin: float | None = None
    """Captions that a blind model, fitted on others, scores by more nats above their best negative are refused.
    None: what `MAX_MARGINS` has for the level; infinity refuses none."""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise ConfigError(f"level is {self.level!r}: expected one of {', '.join(LEVELS)}")
        if self.max_chars < 10 or self.num_drawn < 2 * NUM_NEGATIVES or self.min_context < 1:
            raise ConfigError(
                f"max_chars {self.max_chars}, num_drawn {self.num_drawn}, min_context {self.min_context}: expected at"
                f" least 10, {2 * NUM_NEGATIVES} and 1"
            )
        if (
            self.name_weight < 0
            or not self.ridge > 0
            or self.max_fitted < 1
            or self.max_iterations < 1
            or self.num_rounds < 1
        ):
            raise ConfigError(
                f"object_weight {self.name_weight}, ridge {self.ridge}, max_fitted {self.max_fitted}, max_iterations"
                f" {self.max_iterations}, num_rounds {self.num_rounds}: expected object_weight >= 0 and the others > 0"
            )
        if self.max_margin is not None and math.isnan(self.max_margin):
            raise ConfigError("max_margin is nan: expected nats, infinity to refuse none, or nothing at all")

    @property
    def name_weight(self) -> float:
        """How likely a name of a thing is changed before balancing, beside 1 for an attribute."""
        return OBJECT_WEIGHTS[self.level] if self.object_weight is None else self.object_weight

    @property
    def margin_limit(self) -> float:
        """Nats above which a caption is refused."""
        return MAX_MARGINS[self.level] if self.max_margin is None else self.max_margin
