"""What fields of a training's config may hold. A message names the field as a recipe does: `program.batch_size`."""

import math
from typing import Any

from ovsops.errors import ConfigError

MOST_SEED = 2**32 - 1


def require_at_least(config: Any, owner: str, least: int, *names: str) -> None:
    """Finite numbers of `least` or more."""
    for name in names:
        value = getattr(config, name)
        if not least <= value < math.inf:
            raise ConfigError(f"{owner}.{name} is {value}; it must be {least} or more")


def require_positive(config: Any, owner: str, *names: str) -> None:
    """Finite numbers over 0."""
    for name in names:
        value = getattr(config, name)
        if not 0 < value < math.inf:
            raise ConfigError(f"{owner}.{name} is {value}; it must be over 0")


def require_share(config: Any, owner: str, *names: str) -> None:
    """Numbers from 0 to 1."""
    for name in names:
        value = getattr(config, name)
        if not 0 <= value <= 1:
            raise ConfigError(f"{owner}.{name} is {value}; it must lie in [0, 1]")


def require_range(config: Any, owner: str, *names: str) -> None:
    """Pairs of shares, both over 0, the smaller one first."""
    for name in names:
        smallest, largest = getattr(config, name)
        if not 0 < smallest <= largest <= 1:
            raise ConfigError(
                f"{owner}.{name} is ({smallest}, {largest}); expected 0 < smallest <= largest <= 1"
            )


def require_seed(config: Any, owner: str) -> None:
    """A seed that every generator takes."""
    if not 0 <= config.seed <= MOST_SEED:
        raise ConfigError(f"{owner}.seed is {config.seed}; it must lie in [0, {MOST_SEED}]")


def require_weights(config: Any, owner: str, *names: str) -> None:
    """Weights of terms: 0 (off) or more, and one of them over 0."""
    require_at_least(config, owner, 0, *names)
    if not any(getattr(config, name) for name in names):
        raise ConfigError(
            f"{owner}: every weight is 0, so nothing is learned; raise one of {', '.join(names)}"
        )
