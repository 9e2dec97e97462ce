"""Workers that run no model load no torch: each costs ten CPU-seconds and a gigabyte that a night does not have."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "modules",
    [
        "pipelines.stages.annotate, pipelines.stages.encode, pipelines.stages.write",
        "pipelines.sources, pipelines.readers, pipelines.runner",
        "pipelines.label, pipelines.retry",
        "pipelines.mine_job, pipelines.llm_negatives, pipelines.negatives_llm, ovsops.negatives.validators",
        "pipelines.negatives, pipelines.negatives_checks, pipelines.dataset",
    ],
)
def test_nothing_heavy_is_imported(modules: str) -> None:
    program = (
        f"import sys, {modules}; sys.exit(', '.join({{'torch', 'transformers'}} & sys.modules.keys()) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
