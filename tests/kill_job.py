"""A label job as a real process that can be told to kill one of its processes at one boundary, once.

python -m tests.kill_job '{"shards": [...], "output": ..., "switch": {...}, ...}'
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.label import LabelJob, run_label
from pipelines.ledger import Commit, Ledger
from pipelines.readers import ReaderConfig
from pipelines.runner import Placement, RayConfig, RayEngine, Step
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.stages.annotate import BatchConfig
from pipelines.stages.write import WriteStage
from pipelines.storage import StorageOptions
from tests.tiny.segmenters import CLASSES, ColourFactory

LATE_WIDTH = 80
"""Images this wide are not segmented before the switch has fired, where a worker is to be killed."""


@dataclass(frozen=True)
class KillSwitch:
    """Kills `target` (driver, segment, write) when `boundary` is reached for the `nth` time, once."""

    boundary: str = ""
    target: str = ""
    folder: str = ""
    nth: int = 1

    def reached(self, boundary: str) -> None:
        if boundary != self.boundary:
            return
        with (Path(self.folder) / "reached").open("ab") as file:
            file.write(b".")
            count = file.tell()
        if count == self.nth:
            (Path(self.folder) / "fired").write_text(self.target)
            os.kill(self.pid(), signal.SIGKILL)

    def pid(self) -> int:
        return int((Path(self.folder) / f"{self.target}.pid").read_text())


def leave_pid(path: Path) -> None:
    """Put this process's id into a file that is never seen half written."""
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_text(str(os.getpid()))
    beside.replace(path)


class KillableWriteStage(WriteStage):
    """Leaves its process id, and reaches two boundaries at each part."""

    switch: KillSwitch

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        if self.switch.folder:
            leave_pid(Path(self.switch.folder) / "write.pid")
        yield from super().process(batch)

    def write_part(self, rows: pa.Table) -> dict[str, object]:
        self.switch.reached("before a part")
        summary = super().write_part(rows)
        self.switch.reached("after a part")
        return summary


class KillableLedger(Ledger):
    """Reaches the boundaries of the driver."""

    switch: KillSwitch

    def commit(self, commit: Commit) -> bool:
        self.switch.reached("after seal, before commit")
        won = super().commit(commit)
        self.switch.reached("between commit and publish")
        return won

    def publish(self, commit: Commit) -> None:
        super().publish(commit)
        self.switch.reached("after publish")


@dataclass(frozen=True, kw_only=True)
class KillableJob(LabelJob):
    """The label job with a kill switch in its writer."""

    switch: KillSwitch = KillSwitch()

    def steps(self, run: str) -> list[Step]:
        segment, write = super().steps(run)
        stages = []
        for stage in write.stages:
            if isinstance(stage, WriteStage):
                stage = KillableWriteStage(stage.output, stage.options, stage.run)
                stage.switch = self.switch
            stages.append(stage)
        return [segment, replace(write, stages=tuple(stages))]


def make_job(arguments: dict[str, Any]) -> KillableJob:
    storage = StorageOptions(**arguments.get("storage", {}))
    switch = KillSwitch(**arguments.get("switch", {}))
    return KillableJob(
        output=arguments["output"],
        shards=tuple(expand_inputs(arguments["shards"], storage)),
        annotator=ColourFactory(
            seconds_per_batch=arguments.get("seconds_per_batch", 0.02),
            pid_file=f"{switch.folder}/segment.pid" if switch.folder else "",
            hold_until=f"{switch.folder}/fired" if switch.target in ("segment", "write") else "",
            hold_width=LATE_WIDTH,
        ),
        segmenter_name="colour",
        classes=CLASSES,
        manifest={"schema_version": SCHEMA_VERSION, "recipe": {"segmenter": "colour"}},
        reader=ReaderConfig(rows_per_table=4),
        batch=BatchConfig(max_images=4, decode_workers=1),
        storage=storage,
        segment_on=Placement(actors=arguments.get("actors", 1), num_cpus=0.5),
        encode_on=Placement(num_cpus=0.5),
        switch=switch,
    )


def main() -> None:
    arguments = json.loads(sys.argv[1])
    job = make_job(arguments)
    leave_pid(Path(job.switch.folder, "driver.pid"))
    KillableLedger.switch = job.switch
    import pipelines.label

    pipelines.label.Ledger = KillableLedger  # the driver's boundaries; workers never see a ledger
    config = RayConfig(address=arguments["address"], block_mib=0.004)
    with RayEngine(config, job.storage) as engine:
        summary = run_label(job, engine, run=arguments["run"])
    sys.stdout.write(json.dumps(summary))


if __name__ == "__main__":
    main()
