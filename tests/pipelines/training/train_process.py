"""A training as a real process.

python -m tests.pipelines.training.train_process '{"folder": ..., "shards": ..., "program": {...}}'
"""

import json
import sys
from pathlib import Path

from pipelines.runner import InlineEngine
from pipelines.storage import StorageOptions
from pipelines.training.job import run_train
from tests.pipelines.training.tiny_program import TinyRecipe, make_job


def main(told: str) -> int:
    plain = json.loads(told)
    job = make_job(Path(plain["folder"]), Path(plain["shards"]), program=TinyRecipe(**plain["program"]))
    try:
        run_train(job, InlineEngine(StorageOptions()))
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
