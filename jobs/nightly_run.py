"""A night from its plan to its record, or the end of one that was killed.

lock -> plan (which shards are new) -> steps -> compare with the last night -> commit -> prune
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from jobs.engines import EngineName
from jobs.exits import exit_code_of
from jobs.label_resolve import ResolvedLabel, resolve
from jobs.nightly_alert import finished_alert, unfinished_alert
from jobs.nightly_recipe import NightlyRecipe
from jobs.nightly_steps import NOTHING, Tonight, check_steps, label_recipe, steps_of
from jobs.places import check_place
from jobs.recipe import LoadedNightly
from ovsops.errors import ConfigError, OutputError
from pipelines.counted import counted
from pipelines.lock import OutputLock
from pipelines.manifest import MANIFEST
from pipelines.nightly import (
    NightLedger,
    NightPlan,
    NightRecord,
    check_night_name,
    labelled_shards,
    plan_night,
)
from pipelines.nightly_checks import (
    MOST_NAMES,
    changed_since,
    check_vocabulary,
    compare_canaries,
    compare_populations_of,
    has_labels,
    told_by_canary,
)
from pipelines.nightly_prune import KeepConfig, NightsPlan, delete_planned, plan_nights
from pipelines.shards import expand_inputs
from pipelines.storage import Storage, local_path, open_storage, scheme_of

logger = logging.getLogger(__name__)

AGAIN = "run the same command again: it goes on with this night"
GIVEN_UP = "given up"


@dataclass(frozen=True, kw_only=True)
class NightOptions:
    """What the command line says beside the recipe."""

    engine: EngineName = "ray"
    night: str | None = None
    """Name of a new night; None: the date."""
    give_up: bool = False
    """Close an unfinished night without its shards, which are new again."""


class NightRun:
    """One start of a night."""

    def __init__(self, loaded: LoadedNightly, options: NightOptions, console: Console) -> None:
        self.loaded, self.options, self.console = loaded, options, console
        self.recipe: NightlyRecipe = loaded.recipe
        self.storage = output_of(self.recipe)
        self.ledger = NightLedger(self.storage)
        self.has_lock = self.is_resumed = False
        self.plan: NightPlan | None = None
        self.finished: list[str] = []

    def run(self) -> dict[str, Any]:
        """Do it; what the alert says.

        Raises ConfigError for the recipe, CheckpointError and PreflightError for what is missing, and OutputError where
        another night is at work or the unfinished one was begun with another recipe.
        """
        resolved = preflight(self.loaded)
        if self.options.night is not None:
            check_night_name(self.options.night)
        with OutputLock(self.storage) as lock:
            self.has_lock = True
            try:
                return self._night(lock, resolved)
            except BaseException as error:
                if self.plan is not None:
                    self.ledger.say(self.plan.night, self.alert_of(error))
                raise

    def alert_of(self, error: BaseException) -> dict[str, Any]:
        """What is said where a start ends with an error."""
        state = "failed" if self.has_lock else "not started"
        advice = AGAIN if self.plan is not None else ""
        if isinstance(error, KeyboardInterrupt):
            state = "interrupted"
        elif isinstance(error, OutputError):
            state = state if self.has_lock else "locked"
            if self.is_resumed:
                advice = (
                    "this night was begun with another recipe or checkpoint: put that back and run again, or close it"
                    " with --give-up, which makes its shards new again"
                )
        text = str(error) or type(error).__name__
        return unfinished_alert(
            state=state,
            exit_code=exit_code_of(error),
            output=self.storage.url,
            error="" if isinstance(error, KeyboardInterrupt) else text,
            plan=self.plan,
            steps=self.finished,
            advice=advice,
        )

    def _night(self, lock: OutputLock, resolved: ResolvedLabel) -> dict[str, Any]:
        records = self.ledger.read_all()
        self.ledger.recover(records)
        unfinished = self.ledger.unfinished(records)
        if unfinished is not None and self.options.give_up:
            self._give_up(unfinished, len(records))
            records, unfinished = self.ledger.read_all(), None
        plan = self.plan = self._plan(unfinished, records, resolved)
        tonight = Tonight(
            loaded=self.loaded,
            ledger=self.ledger,
            plan=plan,
            records=records,
            engine=self.options.engine,
            console=self.console,
        )
        if plan.before and has_labels(tonight.storage("label", plan.before)):
            check_vocabulary(tonight.storage("label", plan.before), resolved.vocabulary)
        results, seconds = self._steps(tonight, lock)
        record = self._record(tonight, results, seconds)
        lock.check()
        self.ledger.commit(record)
        logger.info("night %s is committed: %s", record.night, record.state)
        return self._prune([*records, record])

    def _plan(
        self, unfinished: str | None, records: Sequence[NightRecord], resolved: ResolvedLabel
    ) -> NightPlan:
        """That of the unfinished night, or a new one."""
        wanted = self.options.night
        if unfinished is not None:
            if wanted not in (None, unfinished):
                raise ConfigError(
                    f"--night {wanted}: night {unfinished} is not finished: run without --night, it goes on, or"
                    " close it with --give-up"
                )
            self.is_resumed = True
            logger.info("night %s goes on", unfinished)
            return self.ledger.plan(unfinished)
        now = time.time()
        name = wanted or self.ledger.new_name(records, now=now)
        if name in {record.night for record in records}:
            raise ConfigError(f"--night {name}: that night is committed; choose another name")
        plan = plan_night(name, resolved.shards, records, resolved.recipe.storage, began=now)
        self.ledger.begin(plan)
        logger.info("night %s: %d new shards, %d known", name, len(plan.shards), plan.known)
        return plan

    def _give_up(self, night: str, number: int) -> None:
        plan = self.ledger.plan(night)
        alert = unfinished_alert(state=GIVEN_UP, exit_code=0, output=self.storage.url, plan=plan)
        self.ledger.commit(
            NightRecord(
                night=night, number=number, state=GIVEN_UP, before=plan.before, shards=(), alert=alert
            )
        )
        logger.warning("night %s is given up: its %d shards are new again", night, len(plan.shards))

    def _steps(
        self, tonight: Tonight, lock: OutputLock
    ) -> tuple[dict[str, dict[str, Any]], dict[str, float]]:
        """What each step did, and its seconds in the start that finished it."""
        results: dict[str, dict[str, Any]] = {}
        seconds: dict[str, float] = {}
        for step in steps_of(self.recipe):
            lock.check()
            noted = self.ledger.step(tonight.plan.night, step.name)
            if noted is None:
                logger.info("night %s: %s", tonight.plan.night, step.name)
                started = time.monotonic()
                result = step.run(tonight)
                noted = {"seconds": time.monotonic() - started, "result": result}
                lock.check()
                self.ledger.note_step(tonight.plan.night, step.name, noted)
            results[step.name], seconds[step.name] = noted["result"], noted["seconds"]
            self.finished.append(step.name)
        return results, seconds

    def _record(
        self, tonight: Tonight, results: Mapping[str, dict[str, Any]], seconds: Mapping[str, float]
    ) -> NightRecord:
        plan, commits = tonight.plan, tonight.commits()
        drift = self._drift(tonight, has_commits=bool(commits))
        canary_then = next((r for r in reversed(tonight.records) if r.canary), None)
        canary, canary_changed = self._canary(tonight, results.get("canary"), canary_then)
        changed = drift.pop("changed", None) or canary_changed or {}
        drift = told_by_canary(drift, canary)
        record = NightRecord(
            night=plan.night,
            number=len(tonight.records),
            state="",
            before=plan.before,
            shards=labelled_shards(plan, commits),
            canary=results.get("canary", {}).get("labels", {}),
            alert={"began_unix": plan.began},
        )
        alert = finished_alert(
            plan,
            number=record.number,
            output=self.storage.url,
            steps=results,
            seconds=seconds,
            model_seconds=sum(commit.seconds.get("segment_seconds", 0.0) for commit in commits),
            drift=drift,
            canary=canary,
            changed=changed,
            prune=self._prune_facts(self._prune_plan([*tonight.records, record])),
            watch=self.recipe.watch,
        )
        return replace(record, state=alert["state"], alert=alert)

    def _drift(self, tonight: Tonight, *, has_commits: bool) -> dict[str, Any]:
        before = tonight.plan.before
        if not before:
            return {"not_tested": "no earlier night has labelled anything"}
        if not has_commits:
            return {"not_tested": NOTHING}
        earlier = tonight.storage("label", before)
        if not has_labels(earlier):
            return {"not_tested": f"the labels of night {before} are gone"}
        watch = self.recipe.watch
        found = compare_populations_of(earlier, tonight.storage("label"), watch.diff, of_data=watch.of_data)
        return found | {"compared_with": before}

    def _canary(
        self, tonight: Tonight, result: Mapping[str, Any] | None, then: NightRecord | None
    ) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """What the canary says, and what changed since it was labelled the last time."""
        if result is None:
            return None, None
        if then is None:
            first = compare_canaries(result["labels"], result["labels"], None)
            says = (
                first["says"] if first["differs"] else f"the canary's first night ({first['images']} images)"
            )
            return first | {"says": says, "compared_with": tonight.plan.night}, None
        earlier = tonight.storage("canary", then.night)
        changed = changed_since(earlier, tonight.storage("canary")) if earlier.exists(MANIFEST) else None
        found = compare_canaries(then.canary, result["labels"], changed)
        return found | {"compared_with": then.night}, changed

    def _prune_plan(self, records: Sequence[NightRecord]) -> NightsPlan | None:
        keep: KeepConfig | None = self.recipe.keep
        if keep is None:
            return None
        return plan_nights(self.storage, self.recipe.storage, records, keep, now=time.time())

    def _prune_facts(self, plan: NightsPlan | None) -> dict[str, Any] | None:
        if plan is None:
            return None
        nights = sorted(night for night, each in plan.plans.items() if each.delete)
        return {"nights": nights, "files": plan.num_files, "bytes": plan.num_bytes, "deleted": None}

    def _prune(self, records: Sequence[NightRecord]) -> dict[str, Any]:
        """Delete what the policy lets go, now that the night is committed; the alert."""
        record = records[-1]
        alert = dict(record.alert)
        plan = self._prune_plan(records)
        if plan is None or self.recipe.keep is None or not self.recipe.keep.delete or not plan.num_files:
            return alert
        done = delete_planned(self.storage, self.recipe.storage, plan)
        deleted = sum(len(each.deleted) for each in done.values())
        alert["prune"] = {**(self._prune_facts(plan) or {}), "deleted": deleted}
        self.ledger.say(record.night, alert)
        return alert


def output_of(recipe: NightlyRecipe) -> Storage:
    """The output, wherever workers run."""
    url = str(local_path(recipe.output)) if scheme_of(recipe.output) == "file" else recipe.output
    return open_storage(url, recipe.storage)


def preflight(loaded: LoadedNightly) -> ResolvedLabel:
    """Load every step and find what the labels need, before anything is written."""
    check_steps(loaded)
    check_place(loaded.recipe.output)
    resolved = resolve(label_recipe(loaded, f"{output_of(loaded.recipe).url}/label"))
    if loaded.recipe.canary is not None:
        expand_inputs(loaded.recipe.canary.shards, resolved.recipe.storage)
    return resolved


def dry_run_lines(loaded: LoadedNightly, options: NightOptions) -> Iterator[str]:
    """What a night would do now. Writes nothing, and needs no lock."""
    resolved = preflight(loaded)
    storage = output_of(loaded.recipe)
    ledger = NightLedger(storage)
    records = ledger.read_all()
    unfinished = ledger.unfinished(records)
    now = time.time()
    if unfinished is not None:
        plan = ledger.plan(unfinished)
        yield f"night {unfinished} is not finished: it would go on"
    else:
        name = check_night_name(options.night) if options.night else ledger.new_name(records, now=now)
        plan = plan_night(name, resolved.shards, records, resolved.recipe.storage, began=now)
        yield f"night {name} would begin in {storage.url}"
    names = [shard.name for shard in plan.shards]
    more = f" and {len(names) - MOST_NAMES} others" if len(names) > MOST_NAMES else ""
    yield f"{counted(len(names), 'new shards')}{': ' if names else ''}{', '.join(names[:MOST_NAMES])}{more}"
    yield f"{counted(plan.known, 'shards are')} done; {len(plan.copies)} look new and hold known bytes"
    done = [step.name for step in steps_of(loaded.recipe) if ledger.step(plan.night, step.name) is not None]
    yield f"steps: {', '.join(step.name for step in steps_of(loaded.recipe) if step.name not in done)}"
    if loaded.recipe.keep is not None:
        found = plan_nights(storage, loaded.recipe.storage, records, loaded.recipe.keep, now=now)
        yield f"of old nights {found.num_files} files, {found.num_bytes / 1e6:.1f} MB may go"
        yield from (f"  {line}" for line in found.lines())
