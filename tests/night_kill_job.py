"""A night as a real process, whose negatives or dataset step kills it at one boundary, once.

python -m tests.night_kill_job '{"recipe": ..., "job": "negatives", "boundary": "sealed", "switches": ..., ...}'

sealed: a unit is written, nothing says so yet; committed: its record is there, its tables are not yet published. Labels
are made by hand: what is killed comes after them.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jobs.nightly_steps
import pipelines.units
from jobs.cli import run_command
from jobs.recipe import LoadedRecipe
from pipelines.dataset import DatasetJob
from pipelines.ledger import Ledger
from pipelines.negatives import NegativesJob
from pipelines.storage import Storage, open_storage
from pipelines.summary import RunStats, summarise
from pipelines.units import UnitCommit, UnitJob, UnitStage
from tests.tiny.labelled import label, some_images
from tests.units_kill_job import KillableLedger, Switches, killable

JOBS: Mapping[str, type[UnitJob]] = {"negatives": NegativesJob, "dataset": DatasetJob}
BOUNDARIES = {"sealed": "worker", "committed": "driver"}
"""What `units_kill_job` calls them, where worker and driver are two processes."""


def labelled_by_hand(corpus: Path, num_shards: int) -> Callable[..., dict[str, Any]]:
    """In place of the label job: captioned regions of both languages, committed as it would."""

    def run(loaded: LoadedRecipe, **_: Any) -> dict[str, Any]:
        out = Path(loaded.recipe.output)
        label(out, corpus, [some_images(number) for number in range(num_shards)])
        commits = Ledger(open_storage(str(out))).read_all()
        return summarise(
            commits, RunStats(started=time.time()), pending=0, limits=loaded.recipe.limits, state="done"
        )

    return run


def arm(job: type[UnitJob], boundary: str, switches: Switches) -> None:
    """Let this process die at a boundary of one job, and at none of others."""
    if boundary == "sealed":
        make_stage = job.stage

        def stage(self: UnitJob, storage: Storage, run: str) -> UnitStage:
            return killable(make_stage(self, storage, run), switches)

        job.stage = stage  # type: ignore[method-assign]
        return
    kind = "samples" if job is DatasetJob else "negatives"
    KillableLedger.switches = switches

    def ledger(storage: Storage, kinds: Sequence[str]) -> Ledger[UnitCommit]:
        make = KillableLedger if kind in kinds else Ledger
        return make(storage, UnitCommit, kinds)

    pipelines.units.unit_ledger = ledger


def main() -> None:
    arguments = json.loads(sys.argv[1])
    jobs.nightly_steps.run_recipe = labelled_by_hand(Path(arguments["corpus"]), arguments["num_shards"])
    arm(JOBS[arguments["job"]], arguments["boundary"], Switches(arguments["switches"]))
    sys.exit(run_command(["nightly", arguments["recipe"], "--night", "one", "--engine", "inline"]))


if __name__ == "__main__":
    main()
