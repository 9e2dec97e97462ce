"""How a sample is drawn and what a run must reach."""

from dataclasses import dataclass, field

from ovsops.errors import ConfigError
from ovsops.metrics.audit import AcceptanceConfig


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Which labels are drawn."""

    rows: int = 200
    """Labels to judge."""
    seed: int = 0
    """Others draw others; the same one draws the same labels of the same run."""
    bands: tuple[float, ...] = (0.5, 0.8)
    """Scores that part low, middle and high ones; of calibrated scores where there are any."""
    least: int = 2
    """Rows of each stratum at least, where the stratum has as many."""
    power: float = 0.5
    """The other rows go to strata by size ** power: 1 serves the whole best, 0 every stratum alike."""

    def __post_init__(self) -> None:
        if self.rows < 1 or self.least < 1:
            raise ConfigError(f"sample.rows is {self.rows} and sample.least {self.least}: give 1 or more")
        if list(self.bands) != sorted(set(self.bands)) or not all(0 < band < 1 for band in self.bands):
            raise ConfigError(f"sample.bands is {self.bands}: give rising scores in (0, 1)")
        if not 0 <= self.power <= 1:
            raise ConfigError(f"sample.power is {self.power}: give 0 to 1")


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """All of an audit."""

    sample: SampleConfig = field(default_factory=SampleConfig)
    acceptance: AcceptanceConfig = field(default_factory=AcceptanceConfig)
