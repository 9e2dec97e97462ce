"""What makes a label worth a look."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ovsops.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ReviewConfig:
    """How a queue is made."""

    budget: int = 200
    """Labels in the queue."""
    seed: int = 0
    """Decides which labels stand for a class that has more than `pool_per_class`."""
    pool_per_class: int = 1000
    """Labels of a class that are weighed against each other; of more, uncertain ones are likelier to be among them."""
    max_per_image: int = 3
    """Labels of one image in the queue."""
    bandwidth: float = 0.25
    """How far a label stands for others, in units of its descriptor (position, size and shape as shares of the image,
    score)."""
    rarity: float = 0.5
    """A class of n labels counts n ** -rarity: 0 counts all alike."""
    class_values: Mapping[str, float] = field(default_factory=dict)
    """Factors of single classes by name; 0 leaves a class out."""

    def __post_init__(self) -> None:
        for name in ("budget", "pool_per_class", "max_per_image"):
            if getattr(self, name) < 1:
                raise ConfigError(f"review.{name} is {getattr(self, name)}: give 1 or more")
        if not 0 < self.bandwidth < float("inf"):
            raise ConfigError(f"review.bandwidth is {self.bandwidth}: give a finite number above 0")
        if not 0 <= self.rarity <= 1:
            raise ConfigError(f"review.rarity is {self.rarity}: give 0 to 1")
        for name, value in self.class_values.items():
            if not 0 <= value < float("inf"):
                raise ConfigError(f"review.class_values.{name} is {value}: give a finite number of 0 or more")
