"""A negatives, dataset or mine job as a real process on Ray: kills a worker that has done its first unit, and then the
driver between a commit and its publishing, each once. Of a mine job a worker that has written pairs dies, too, and the
driver while pairs come in and when all are there, where `boundaries` names them.

python -m tests.units_kill_job '{"job": "negatives", "labels": ..., "shards": ..., "output": ..., "switch": {...}, ...}'
"""

import json
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

import pipelines.mine_job
import pipelines.mining
import pipelines.units
from ovsops.negatives.config import NegativeConfig
from pipelines.dataset import DatasetJob, SetConfig, dataset_units
from pipelines.dataset_plan import SetRules
from pipelines.embedding import EmbedConfig, EmbedJob, embed_units
from pipelines.labelled_shards import LabelRun, open_label_run
from pipelines.ledger import Ledger
from pipelines.mine_job import MineJob
from pipelines.mining import MineStage, MiningConfig
from pipelines.negatives import NegativesJob, negatives_commits, negatives_units
from pipelines.runner import InlineEngine, Placement, RayConfig, RayEngine, Step
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.storage import Storage, StorageOptions, open_storage
from pipelines.training_sets.splits import SplitConfig
from pipelines.units import SealedUnit, UnitCommit, UnitJob, UnitStage, run_units
from tests.tiny.colours import SeeingStage


@dataclass(frozen=True)
class Switches:
    """Kills whoever reaches a boundary first, once, and leaves a file that says so."""

    folder: str
    boundaries: tuple[str, ...]

    def reached(self, boundary: str) -> None:
        if boundary not in self.boundaries:
            return
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


class KillableMiner(MineStage):
    """Its process dies when it has written pairs and said nothing of them yet."""

    switches: Switches

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        for table in super().process(batch):
            self.switches.reached("miner")
            yield table


class KillableEngine(RayEngine):
    """Lets the driver die while pairs come in."""

    switches: Switches

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        for table in super().units(tasks, step):
            if isinstance(step.stages[0], MineStage):
                self.switches.reached("driver between parts")
            yield table


class SeeingJob(MineJob):
    """Embeds by colours."""

    def stage(self, storage: Storage, run: str) -> UnitStage:
        assert self.embed is not None
        return SeeingStage(self.embed, run)


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
    if arguments["job"] == "mine":
        common |= {
            "units": embed_units(labels, expand_inputs([arguments["shards"]], StorageOptions())),
            "labels": labels,
            "work_on": Placement(actors=1, num_cpus=0.5),
        }
        no_model: Any = None
        return SeeingJob(
            embed=EmbedJob(checkpoint=no_model, config=EmbedConfig(images_at_once=3), **common),
            mining=MiningConfig(k=3, min_score=-1.0, query_rows=20),
            mine_on=Placement(num_cpus=0.5),
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
    switches = Switches(arguments["switches"], tuple(arguments["boundaries"]))
    KillableLedger.switches = KillableMiner.switches = KillableEngine.switches = switches

    def ledger(storage: Storage, kinds: Sequence[str]) -> KillableLedger:
        return KillableLedger(storage, UnitCommit, kinds)

    pipelines.units.unit_ledger = ledger  # the driver's boundary; workers never see a ledger
    make_stage = type(job).stage
    type(job).stage = lambda self, storage, run: killable(make_stage(self, storage, run), switches)  # type: ignore[method-assign]
    confusions_of = pipelines.mining.confusions_of

    def confusions(storage: Storage, paths: Iterable[str], kind: str) -> pa.Table:
        switches.reached("driver after parts")
        return confusions_of(storage, paths, kind)

    pipelines.mining.MineStage = KillableMiner  # type: ignore[misc]
    pipelines.mine_job.confusions_of = confusions
    config = RayConfig(address=arguments["address"])
    with KillableEngine(config, StorageOptions()) as engine:
        summary = run_units(job, engine, run=arguments["run"])
    sys.stdout.write(json.dumps(summary) + "\n")


if __name__ == "__main__":
    main()
