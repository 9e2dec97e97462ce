"""A negatives or dataset job as a real process on Ray: kills a worker that has done its first unit, and then the driver
between a commit and its publishing, each once.

python -m tests.units_kill_job '{"job": "negatives", "labels": ..., "shards": ..., "output": ..., "switch": {...}, ...}'
"""

import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipelines.units
from ovsops.negatives.config import NegativeConfig
from pipelines.dataset import DatasetJob, SetConfig, dataset_units
from pipelines.dataset_plan import SetRules
from pipelines.dataset_stage import DatasetStage
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.ledger import Ledger
from pipelines.negatives import NegativesJob, negatives_commits, negatives_units
from pipelines.negatives_stage import NegativesStage
from pipelines.runner import InlineEngine, Placement, RayConfig, RayEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.training_sets.splits import SplitConfig
from pipelines.units import SealedUnit, UnitCommit, UnitJob, UnitStage, run_units

KINDS: Mapping[str, type[UnitStage]] = {"negatives": NegativesStage, "dataset": DatasetStage}


@dataclass(frozen=True)
class Switches:
    """Kills whoever reaches a boundary first, once, and leaves a file that says so."""

    folder: str

    def reached(self, boundary: str) -> None:
        try:
            (Path(self.folder) / boundary).touch(exist_ok=False)
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


def killable(stage: UnitStage, switches: Switches) -> UnitStage:
    """The stage, whose process dies when it has written a unit and said nothing of it yet."""
    kind = type(stage)

    class Killable(kind):  # type: ignore[misc,valid-type]
        def work(self, shard: str, name: str, task: Mapping[str, Any]) -> SealedUnit:
            sealed = super().work(shard, name, task)
            switches.reached("worker")
            return sealed

    stage.__class__ = Killable
    return stage


class KillableLedger(Ledger):
    """Lets the driver die between commit and publish."""

    switches: Switches

    def publish(self, commit: UnitCommit) -> None:
        self.switches.reached("driver")
        super().publish(commit)


def make_job(arguments: Mapping[str, Any]) -> UnitJob:
    labels: LabelRun = open_label_run(arguments["labels"], StorageOptions())
    common: dict[str, Any] = {
        "output": arguments["output"],
        "manifest": {"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "kill"},
        "work_on": Placement(num_cpus=0.5),
    }
    if arguments["job"] == "negatives":
        return NegativesJob(
            units=negatives_units(labels),
            labels=labels,
            negatives=NegativeConfig(max_iterations=2),
            **common,
        )
    negatives = arguments["negatives"]
    return DatasetJob(
        units=dataset_units(
            labels,
            expand_inputs([arguments["shards"]], StorageOptions()),
            negatives=negatives,
            negatives_by_unit=negatives_commits(open_storage(negatives)),
        ),
        rules=SetRules(
            categories={spec.id: spec.name for spec in labels.vocabulary.classes},
            splits=SplitConfig(val=0.2, test=0.2),
        ),
        set=SetConfig(formats=("finehard-json", "webdataset", "coco"), check_images="whole"),
        vocabulary=labels.vocabulary,
        **common,
    )


def run_inline(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The same job, undisturbed and without Ray."""
    return run_units(make_job(arguments), InlineEngine(StorageOptions()), run="reference")


def main() -> None:
    arguments = json.loads(sys.argv[1])
    job = make_job(arguments)
    switches = KillableLedger.switches = Switches(arguments["switches"])

    def ledger(storage: Storage, kinds: Sequence[str]) -> KillableLedger:
        return KillableLedger(storage, UnitCommit, kinds)

    pipelines.units.unit_ledger = ledger  # the driver's boundary; workers never see a ledger
    make_stage = type(job).stage
    type(job).stage = lambda self, storage, run: killable(make_stage(self, storage, run), switches)  # type: ignore[method-assign]
    config = RayConfig(address=arguments["address"])
    with RayEngine(config, StorageOptions()) as engine:
        summary = run_units(job, engine, run=arguments["run"])
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
