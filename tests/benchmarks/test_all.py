"""Every benchmark loads, and the page names it."""

import importlib
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_loads_and_stands_on_the_page(name: str) -> None:
    assert callable(importlib.import_module(f"benchmarks.{name}").main)
    assert f"python -m benchmarks.{name}" in (FOLDER / "README.md").read_text("utf-8")
