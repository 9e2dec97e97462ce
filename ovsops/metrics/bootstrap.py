"""How sure a figure is: percentile bootstrap over images. Axes: I images, B resamples, K a state, F figures.

Efron's percentile interval (An Introduction to the Bootstrap, ch. 13). Images are drawn again with replacement;
a resample's state is the sum of its images' states, so all of them are one matrix product of counts with states.
It says how much a figure would move with other images of the same kind. It does not measure other kinds of
images, another training run, or errors of the truth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64, Num

from ovsops.errors import ConfigError, ShapeError

Figure = Callable[[np.ndarray], np.ndarray]
"""States [B *K] to figures [B *F]: `mean_iou`, `iou`, `mean_boundary_f`, ..."""


@dataclass(frozen=True, kw_only=True)
class BootstrapConfig:
    """How often and from which seed images are drawn again."""

    num_resamples: int = 1000
    confidence: float = 0.95
    """Share of the resamples that the interval holds."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_resamples < 1:
            raise ConfigError(f"bootstrap.num_resamples = {self.num_resamples}: at least 1")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"bootstrap.confidence = {self.confidence}: a share in (0, 1), such as 0.95")


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Figures on all images, and where they lie in the resamples; nan where a figure is not defined."""

    value: Float64[np.ndarray, "*F"]
    low: Float64[np.ndarray, "*F"]
    high: Float64[np.ndarray, "*F"]
    num_defined: Int64[np.ndarray, "*F"]
    """Resamples in which the figure is defined; the others (a rare class was not drawn) are left out."""


def bootstrap(
    states: Num[np.ndarray, "I *K"], figure: Figure, *, config: BootstrapConfig | None = None
) -> Interval:
    """Interval of a figure from the states of single images (`areas`, `counts`, ... stacked).

    The same seed gives the same interval. Raises `ShapeError` without images.
    """
    sums = _resampled(states, config := config or BootstrapConfig())
    return percentile_interval(np.asarray(figure(_whole(states))[0]), figure(sums), config)


def paired_bootstrap(
    states: Num[np.ndarray, "I *K"],
    baseline_states: Num[np.ndarray, "J *K"],
    figure: Figure,
    *,
    config: BootstrapConfig | None = None,
) -> Interval:
    """Interval of the difference `figure(states) - figure(baseline_states)` on the same images, row by row.

    Both are drawn with the same images, so what an image does to both cancels. An interval without 0 says that
    the systems differ on images of this kind.
    """
    if len(states) != len(baseline_states):
        raise ShapeError(
            f"{len(states)} and {len(baseline_states)} images: a paired bootstrap"
            " needs the same images in the same order"
        )
    config = config or BootstrapConfig()
    value = np.asarray((figure(_whole(states)) - figure(_whole(baseline_states)))[0])
    resampled = figure(_resampled(states, config)) - figure(_resampled(baseline_states, config))
    return percentile_interval(value, resampled, config)


def _whole(states: Num[np.ndarray, "I *K"]) -> Num[np.ndarray, "1 *K"]:
    return states.sum(axis=0, keepdims=True)


def draw_times(num_images: int, config: BootstrapConfig) -> Int64[np.ndarray, "B I"]:
    """How often each image is drawn in each resample; the same seed and number give the same draws."""
    if num_images == 0:
        raise ShapeError("there are no images to draw from: give the states of at least one")
    generator = np.random.default_rng(config.seed)
    return generator.multinomial(num_images, np.full(num_images, 1 / num_images), size=config.num_resamples)


def _resampled(states: Num[np.ndarray, "I *K"], config: BootstrapConfig) -> Float64[np.ndarray, "B *K"]:
    """States of the resamples. Float64 holds the sums of whole counts exactly up to 2**53."""
    times_drawn = draw_times(len(states), config)
    flat = states.reshape(len(states), -1).astype(np.float64)
    return (times_drawn.astype(np.float64) @ flat).reshape(config.num_resamples, *states.shape[1:])


def percentile_interval(
    value: Float64[np.ndarray, "*F"], resampled: Float64[np.ndarray, "B *F"], config: BootstrapConfig
) -> Interval:
    """Percentiles over the resamples in which a figure is defined."""
    tail = (1 - config.confidence) / 2
    is_defined = ~np.isnan(resampled)
    num_defined = is_defined.sum(axis=0)
    # A figure that no resample defines has no percentile: it is put to 0 for the sum, and is nan in the end.
    filled = np.where(num_defined > 0, resampled, 0.0)
    low, high = np.nanquantile(filled, [tail, 1 - tail], axis=0)
    nan = np.where(num_defined > 0, 0.0, np.nan)
    return Interval(
        value=np.asarray(value, np.float64),
        low=np.asarray(low + nan),
        high=np.asarray(high + nan),
        num_defined=np.asarray(num_defined, np.int64),
    )
