"""What reuse saves at full size, counted without weights."""

import pytest

from benchmarks.sam3 import count_flops


def test_eighty_prompts_cost_at_most_a_tenth_of_eighty_calls() -> None:
    found = count_flops(80)
    assert found.reused * 10 <= found.single
    assert found.single / 80 / 1e9 == pytest.approx(6053, rel=0.01)  # an image and a prompt, GFLOP
    assert found.reused_corpus < found.reused
