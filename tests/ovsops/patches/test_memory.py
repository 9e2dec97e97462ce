"""The peak of a fresh process at the largest grid: 72 x 72 tokens of 1,024 channels, 21 MB of features."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAX_PEAK_MB = 100.0


@pytest.mark.nightly
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures with Linux's /proc")
@pytest.mark.parametrize("operator", ["lof", "aggregate"])
def test_the_largest_grid_needs_less_than_100_mb_above_its_features(operator: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.patches", "--peak", operator],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert 10 < float(done.stdout) < MAX_PEAK_MB
