"""Spans over working time."""

import pytest

from pipelines.report.timeline import make_timeline, sessions_of


def test_rates_and_busy_seconds_add_up() -> None:
    spans = {
        "segment": [[100.0, 110.0, 8.0, 40], [110.0, 130.0, 20.0, 60]],
        "write": [[120.0, 120.0, 0.0, 7]],
    }
    found = make_timeline(spans)
    assert found is not None
    assert found.working_s == 30.0
    assert found.breaks == ()
    assert (found.rates["segment"] * found.width_s).sum() == pytest.approx(100)
    assert (found.busy["segment"] * found.width_s).sum() == pytest.approx(28)
    assert found.rates["segment"][0] == pytest.approx(4.0)
    assert found.busy["segment"][-1] == pytest.approx(1.0)
    assert (found.rates["write"] * found.width_s).sum() == pytest.approx(7), "a moment is not lost"


def test_idle_time_between_starts_is_left_out() -> None:
    spans = {"segment": [[0.0, 60.0, 30.0, 60], [100_000.0, 100_060.0, 60.0, 120]]}
    found = make_timeline(spans)
    assert found is not None
    assert found.working_s == 120.0
    assert found.breaks == (60.0,)
    assert found.rates["segment"][0] == pytest.approx(1.0)
    assert found.rates["segment"][-1] == pytest.approx(2.0)


def test_runs_without_spans_have_no_timeline() -> None:
    assert make_timeline({}) is None
    assert sessions_of({"segment": []}) == ()


def test_a_run_of_a_moment() -> None:
    found = make_timeline({"segment": [[5.0, 5.0, 0.0, 3]]})
    assert found is not None
    assert (found.rates["segment"] * found.width_s).sum() == pytest.approx(3)
