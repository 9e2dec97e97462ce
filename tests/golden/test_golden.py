"""Inputs and outputs of the published implementations against our operators, one test a file."""

from pathlib import Path

import pytest

from tests.golden.kinds import CHECKS, KINDS, kind_of, run_check


def test_matches_the_published_numbers(golden_file: Path, golden_strict: bool, not_built: set[str]) -> None:
    kind = kind_of(golden_file)
    if kind is not None and kind not in CHECKS:
        not_built.add(f"{kind} ({golden_file.name})")
        if golden_strict:
            pytest.fail(f"not built: {kind}")
        pytest.skip(f"not built: {kind}")
    run_check(golden_file)


def test_every_check_belongs_to_a_kind() -> None:
    assert set(CHECKS) <= KINDS
