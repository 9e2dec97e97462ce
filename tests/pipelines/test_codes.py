"""The list of codes is that of the code."""

import re
from pathlib import Path

from pipelines.codes import FAILURES, RETRYABLE

ROOT = Path(__file__).parents[2]
SHARDS_ALONE = {"E_SHARD_CHANGED"}
"""Of the reader, for a whole shard."""


def test_every_code_that_a_row_can_get_is_listed_and_no_other() -> None:
    files = [
        *(ROOT / "ovsops" / "images").glob("*.py"),
        *(ROOT / "pipelines" / "stages").glob("*.py"),
        *(ROOT / "pipelines" / name for name in ("samples.py", "readers.py")),
    ]
    raised = {code for path in files for code in re.findall(r'"(E_[A-Z0-9_]+)"', path.read_text("utf-8"))}
    assert raised - SHARDS_ALONE == FAILURES
    assert RETRYABLE < FAILURES
