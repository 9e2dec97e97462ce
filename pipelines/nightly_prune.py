"""Which nights may lose their labels, and how: only files that ovsops wrote, shown before they are deleted.

The labels and canary labels of old nights go. Records in the ledger stay, so that what a night labelled is never
labelled again; training sets and negatives stay, because somebody may be training on them. A night with a file `KEEP`
in its folder, or in that of its labels, stays whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ovsops.errors import ConfigError
from pipelines.manifest import NIGHTS
from pipelines.nightly import NightRecord
from pipelines.prune import KEEP, Pruned, PrunePlan, carry_out, plan_prune
from pipelines.storage import Storage, StorageOptions, open_storage

DAY_S = 86_400.0
PRUNED = ("label", "canary")


@dataclass(frozen=True, kw_only=True)
class KeepConfig:
    """Which nights keep their labels."""

    nights: int = 14
    """The newest nights that labelled something keep them; failed rows of the others are not tried again."""
    min_age_days: float = 7.0
    """Younger nights keep them."""
    delete: bool = False
    """False only says what may go; true deletes it at the end of each night."""

    def __post_init__(self) -> None:
        if self.nights < 1:
            raise ConfigError(
                f"keep.nights is {self.nights}: give 1 or more, the next night is compared with the last"
            )
        if not 0 <= self.min_age_days < float("inf"):
            raise ConfigError(f"keep.min_age_days is {self.min_age_days}: give days of 0 or more")


@dataclass(frozen=True, kw_only=True)
class NightsPlan:
    """What may go, by night."""

    plans: Mapping[str, PrunePlan]
    kept: Mapping[str, str] = field(default_factory=dict)
    """Old nights that stay as they are, and why."""

    @property
    def num_files(self) -> int:
        """That may go."""
        return sum(len(plan.delete) for plan in self.plans.values())

    @property
    def num_bytes(self) -> int:
        """That would be freed."""
        return sum(plan.num_bytes for plan in self.plans.values())

    def lines(self) -> Iterator[str]:
        """The dry run."""
        for night, plan in self.plans.items():
            yield from (f"{night}: {line}" for line in plan.lines())
        yield from (f"{night}: keep: {reason}" for night, reason in self.kept.items())


def plan_nights(
    storage: Storage,
    options: StorageOptions,
    records: Sequence[NightRecord],
    keep: KeepConfig,
    *,
    now: float,
) -> NightsPlan:
    """What of the labels of old nights may go. Changes nothing. `records` are the committed nights, in order."""
    labelled = [record.night for record in records if record.shards]
    watched = [record.night for record in records if record.canary]
    needed = {*labelled[-keep.nights :], *watched[-1:]}
    plans: dict[str, PrunePlan] = {}
    kept: dict[str, str] = {}
    for record in records:
        night = record.night
        if night in needed or record.state == "given up":
            continue
        age = (now - float(record.alert.get("began_unix", now))) / DAY_S
        if age < keep.min_age_days:
            kept[night] = f"it is {age:.1f} days old, {keep.min_age_days:g} are wanted"
        elif storage.exists(f"{NIGHTS}/{night}/{KEEP}"):
            kept[night] = f"it has a file {KEEP}"
        else:
            plan = plan_prune(_of_night(storage, night, options), PRUNED)
            if plan.runs or plan.kept_runs:
                plans[night] = plan
    return NightsPlan(plans=plans, kept=kept)


def delete_planned(storage: Storage, options: StorageOptions, plan: NightsPlan) -> dict[str, Pruned]:
    """Carry a plan out, night by night."""
    return {
        night: carry_out(_of_night(storage, night, options), each)
        for night, each in plan.plans.items()
        if each.delete
    }


def _of_night(storage: Storage, night: str, options: StorageOptions) -> Storage:
    return open_storage(f"{storage.url}/{NIGHTS}/{night}", options)
