"""How regions are captioned."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ovsops.errors import ConfigError
from ovsops.regions.attributes import Words

NEVER = 3.0
"""A margin that is never reached, as cosines differ by 2 at most: the type is not said."""


@dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Which attributes are asked for, and how sure they must be to be said."""

    words: Words = "photos"
    """The attribute words: those for photographs (colour, material, pattern, transparency), or those of the miniature
    world (size, colour, pattern, material)."""
    attributes: tuple[str, ...] = ("colour", "material", "pattern", "transparency")
    """Types that are asked of things."""
    stuff_attributes: tuple[str, ...] = ("colour",)
    """Types that are asked of stuff: grass has a colour, and no pattern to speak of."""
    class_attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Types by class name, where a class differs from its kind; () asks for none."""
    default_margin: float = 0.02
    """By how much the cosine of a value must beat that of every rival, for types that `margins` does not name."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """The same by type (`colour`), or by type and language (`colour.zh`), which counts before it; `fit_caption_margins`
    finds them. 3 never says the type."""
    shade_margins: Mapping[str, float] = field(default_factory=dict)
    """As `margins`: by how much a shade must beat all other values, those of its own base too (light red the other
    reds). Below it the base is said."""
    bare_competes: bool = True
    """Whether the noun alone is a rival, too: an attribute that adds nothing to the noun is declined."""
    without_bare: tuple[str, ...] = ()
    """Types (`colour`, `colour.zh`) in which it is none all the same, nor a value that goes without saying: to some
    encoders "ball" is near every ball. Then margins must be fitted, as something always comes first;
    `fit_caption_margins` finds out which types."""
    max_short_attributes: int = 3
    """The short caption says this many attributes at most, those of the largest margins; the long one all."""
    max_phrases: int = 20_000
    """Phrases whose features are kept between images: classes x values of all types; 3 kB each at 768 channels."""

    def __post_init__(self) -> None:
        margins = {"default_margin": self.default_margin}
        for name in ("margins", "shade_margins"):
            margins |= {f"{name}.{kind}": value for kind, value in getattr(self, name).items()}
        for name, value in margins.items():
            if not 0 <= value <= NEVER or math.isnan(value):
                raise ConfigError(
                    f"captions.{name} is {value}; a difference of cosines from 0 to 2 is wanted, or 3 for never"
                )
        if self.max_short_attributes < 0 or self.max_phrases < 1:
            raise ConfigError(
                f"captions: max_short_attributes is {self.max_short_attributes}, max_phrases {self.max_phrases}:"
                " at least 0 and 1 are wanted"
            )

    def margin(self, kind: str, language: str) -> float:
        """The margin of a type over its rivals."""
        return self.margins.get(f"{kind}.{language}", self.margins.get(kind, self.default_margin))

    def shade_margin(self, kind: str, language: str) -> float:
        """The margin of a type's shade over all other values."""
        own = self.shade_margins.get(f"{kind}.{language}", self.shade_margins.get(kind))
        return self.margin(kind, language) if own is None else own

    def has_bare(self, kind: str, language: str) -> bool:
        """Whether the noun alone competes in a type."""
        return self.bare_competes and not {kind, f"{kind}.{language}"} & set(self.without_bare)

    def asked(self, class_name: str, *, is_stuff: bool) -> tuple[str, ...]:
        """Types that are asked of a class."""
        return self.class_attributes.get(class_name, self.stuff_attributes if is_stuff else self.attributes)


@dataclass(frozen=True, kw_only=True)
class GroundingConfig:
    """When a clause of somebody else's caption is believed."""

    margin: float = 0.01
    """By how much the cosine of a clause must beat that of the same clause with another attribute or name in it."""
    min_cosine: float = 0.15
    """Cosine that a clause needs at least: the bound of BoxClass-CN, below which FG-CLIP 2's authors dropped boxes
    (arXiv:2510.10921, section 3.4)."""
    max_clauses: int = 16
    """Clauses that are looked at; what comes after them is dropped."""
    max_contrasts: int = 64
    """Contrasts of one clause at most."""

    def __post_init__(self) -> None:
        if not 0 <= self.margin <= 2 or not -1 <= self.min_cosine <= 1:
            raise ConfigError(f"{self}: margin lies in [0, 2], min_cosine in [-1, 1]")
        if self.max_clauses < 1 or self.max_contrasts < 1:
            raise ConfigError(f"{self}: max_clauses and max_contrasts are at least 1")
