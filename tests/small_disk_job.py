"""A label job whose files may not grow beyond a limit (0: no limit), as on a full disk.

python -m tests.small_disk_job '["IN", "OUT"]' BYTES
"""

import json
import resource
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ovsops.masks.class_map import ClassMap
from pipelines.label import run_label
from pipelines.runner import InlineEngine
from tests.kill_job import make_job
from tests.tiny.segmenters import ColourFactory


@dataclass
class FillingDisk(ColourFactory):
    """The limit falls with the first model call: decoders, which are running by then, keep their own."""

    limit: int = 0

    def segment(self, images: Sequence[np.ndarray]) -> list[ClassMap]:
        if self.limit:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, hard))
        return super().segment(images)


def main() -> None:
    shards, output = json.loads(sys.argv[1])
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    job = make_job({"shards": [shards], "output": output, "seconds_per_batch": 0.0})
    job = replace(job, annotator=FillingDisk(limit=int(sys.argv[2])))
    try:
        run_label(job, InlineEngine(job.storage), run=f"limit-{sys.argv[2]}")
    except Exception as error:  # noqa: BLE001  what a user would read
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
