"""What counts as the same label, and when a difference alarms."""

from dataclasses import dataclass, field

from ovsops.errors import ConfigError
from ovsops.metrics.drift import DriftConfig


@dataclass(frozen=True, kw_only=True)
class MatchConfig:
    """When an instance of one run is an instance of the other."""

    match_iou: float = 0.5
    """Masks of at least this IoU are of one thing."""
    kept_iou: float = 0.95
    """From here on the label was kept; below, it moved."""

    def __post_init__(self) -> None:
        if not 0 < self.match_iou <= self.kept_iou <= 1:
            raise ConfigError(
                f"match.match_iou is {self.match_iou} and match.kept_iou {self.kept_iou}: they must lie in (0, 1], the"
                " first no larger than the second"
            )


@dataclass(frozen=True, kw_only=True)
class DiffLimits:
    """How much the labels of the same images may change before a diff alarms."""

    max_changed_share: float = 0.05
    """Share of the labels of both runs that are not kept: moved, renamed, lost or new."""
    max_decisions_share: float = 0.05
    """Share of matched labels whose decision changed."""

    def __post_init__(self) -> None:
        for name in ("max_changed_share", "max_decisions_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"limits.{name} is {getattr(self, name)}; a share lies in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class DiffConfig:
    """All of a diff."""

    match: MatchConfig = field(default_factory=MatchConfig)
    drift: DriftConfig = field(default_factory=DriftConfig)
    limits: DiffLimits = field(default_factory=DiffLimits)
