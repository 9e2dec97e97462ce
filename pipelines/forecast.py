"""What a run will take, from what a sample of it took: arithmetic alone, no clock, no file.

A stage needs seconds of one of its workers for an image; its throughput is workers over seconds; the slowest stage is
the throughput of the whole. Every figure is an `Estimate`. Intervals are Student's, over model batches (images of one
batch share their time) or over images; ends are added and divided with the unfavourable ends together, so that what is
computed from several estimates has an interval that is rather too wide than too narrow.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

from scipy.special import stdtrit

from ovsops.errors import ConfigError

CONFIDENCE = 0.95
GB = 1e9
"""Bytes of a GB of storage, as it is sold."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float

    @classmethod
    def exactly(cls, value: float) -> "Estimate":
        """A figure without an interval."""
        return cls(value=value, low=value, high=value)

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(value=self.value + other.value, low=self.low + other.low, high=self.high + other.high)

    def __mul__(self, factor: float) -> "Estimate":
        """`factor` must not be negative."""
        return Estimate(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def inverse(self) -> "Estimate":
        """1 over it; infinite where it is 0."""
        return Estimate(value=_over(self.value), low=_over(self.high), high=_over(self.low))

    def to_plain(self) -> dict[str, float | None]:
        """For JSON, which has no infinity: null stands for it."""
        return {name: number if math.isfinite(number) else None for name, number in asdict(self).items()}


def _over(number: float) -> float:
    return 1.0 / number if number > 0 else math.inf


def per_image(amounts: Sequence[float], sizes: Sequence[int], *, confidence: float = CONFIDENCE) -> Estimate:
    """Amount of an image from groups of images: `amounts[g]` in all for the `sizes[g]` images of group `g`.

    The ratio of the sums, with the variance of the ratio estimator of cluster sampling (Cochran, Sampling Techniques,
    3rd ed., eq. 2.39 with clusters as units, no correction for a finite population) and Student's t of groups - 1.
    The low end is never below the cheapest group. One group has no spread: its ends are its value.
    """
    total = sum(sizes)
    if total < 1 or min(sizes) < 1 or len(amounts) != len(sizes):
        raise ConfigError(
            f"{len(amounts)} amounts of groups of {list(sizes)[:8]} images: give as many of both, none empty"
        )
    groups = len(sizes)
    ratio = sum(amounts) / total
    if groups == 1:
        return Estimate.exactly(ratio)
    squares = sum((amount - ratio * size) ** 2 for amount, size in zip(amounts, sizes, strict=True))
    error = math.sqrt(squares / (groups * (groups - 1))) / (total / groups)
    half = float(stdtrit(groups - 1, 0.5 + confidence / 2)) * error
    cheapest = min(amount / size for amount, size in zip(amounts, sizes, strict=True))
    return Estimate(value=ratio, low=max(ratio - half, min(cheapest, ratio)), high=ratio + half)


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """One stage of a pipeline whose stages work side by side."""

    name: str
    seconds: Estimate
    """Of one worker, for one image."""
    workers: float | None = 1.0
    """Workers that the recipe gives it; None: as many as there is room for, so that it limits nothing."""

    @property
    def per_worker(self) -> Estimate:
        """Images a second of one worker."""
        return self.seconds.inverse()

    @property
    def throughput(self) -> Estimate | None:
        """Images a second of all its workers; None where their number is not known."""
        return None if self.workers is None else self.per_worker * self.workers

    def to_plain(self) -> dict[str, object]:
        """For JSON."""
        whole = self.throughput
        return {
            "stage": self.name,
            "seconds_per_image": self.seconds.to_plain(),
            "workers": self.workers,
            "images_per_second_of_a_worker": self.per_worker.to_plain(),
            "images_per_second": None if whole is None else whole.to_plain(),
        }


def bottleneck(stages: Sequence[StageTime]) -> StageTime:
    """The stage of least throughput."""
    return min((s for s in stages if s.throughput is not None), key=lambda s: _whole(s).value)


def throughput(stages: Sequence[StageTime]) -> Estimate:
    """Images a second of stages that work side by side: that of the slowest, at each end of the intervals."""
    known = [_whole(stage) for stage in stages if stage.throughput is not None]
    return Estimate(
        value=min(e.value for e in known), low=min(e.low for e in known), high=min(e.high for e in known)
    )


def _whole(stage: StageTime) -> Estimate:
    assert stage.throughput is not None, "filtered by the caller"
    return stage.throughput


def one_after_another(stages: Sequence[StageTime]) -> Estimate:
    """Images a second of one process that does every stage in turn."""
    seconds = Estimate.exactly(0.0)
    for stage in stages:
        seconds += stage.seconds
    return seconds.inverse()


def run_seconds(num_images: float, rate: Estimate, start_up: Estimate) -> Estimate:
    """Seconds of a run; none for no images."""
    if num_images <= 0:
        return Estimate.exactly(0.0)
    return rate.inverse() * num_images + start_up


def gpu_workers(actors: int, num_gpus: float) -> float:
    """Workers of the model stage: actors, or GPUs where several actors share one.

    One actor alone was timed on a GPU; two on one GPU are counted as one, which is too few where one leaves it idle.
    """
    return actors * min(1.0, num_gpus) if num_gpus > 0 else float(actors)


@dataclass(frozen=True, kw_only=True)
class Prices:
    """What things cost, in any one currency. None is not known, and is not guessed."""

    gpu_hour: float | None = None
    cpu_hour: float | None = None
    """Of one core."""
    gb_month: float | None = None
    """Of a GB (1e9 bytes) stored for a month."""
    review_minute: float | None = None
    """Of a person."""

    def __post_init__(self) -> None:
        for each in fields(self):
            price = getattr(self, each.name)
            if price is not None and not 0 <= price < math.inf:
                option = f"--price-{each.name.replace('_', '-')}"
                raise ConfigError(f"{option} is {price}; it must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a run takes that has a price."""

    gpu_hours: Estimate
    """Hours that GPUs are held, busy or not."""
    cpu_hours: Estimate
    """Hours that cores are held."""
    stored_bytes: Estimate
    review_minutes: Estimate | None = None
    """None where nobody said how long a person looks at a label."""


def bill(needs: Needs, prices: Prices) -> Mapping[str, Estimate]:
    """Money by what it is for: `gpu`, `cpu`, `review`, their sum `once`, `storage_month`; of what has a price."""
    money: dict[str, Estimate] = {}
    if prices.gpu_hour is not None:
        money["gpu"] = needs.gpu_hours * prices.gpu_hour
    if prices.cpu_hour is not None:
        money["cpu"] = needs.cpu_hours * prices.cpu_hour
    if prices.review_minute is not None and needs.review_minutes is not None:
        money["review"] = needs.review_minutes * prices.review_minute
    if money:
        once = Estimate.exactly(0.0)
        for part in money.values():
            once += part
        money["once"] = once
    if prices.gb_month is not None:
        money["storage_month"] = needs.stored_bytes * (prices.gb_month / GB)
    return money
