"""What is said while an engine starts, and when it does not."""

import logging
import time

import pytest

from jobs import engines
from jobs.engines import running_engine, still_starting
from jobs.exits import PreflightError
from pipelines.runner import RayConfig
from pipelines.storage import StorageOptions


def test_a_slow_start_is_told_and_the_way_out_with_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engines, "TOLD_EVERY_S", 0.02)
    with caplog.at_level(logging.INFO, "jobs.engines"), still_starting():
        time.sleep(0.2)
    told = [record.getMessage() for record in caplog.records]
    assert told
    assert set(told) == {"Ray is still starting (0 s); --engine inline needs none"}
    time.sleep(0.05)
    assert len(caplog.records) == len(told), "nothing is told once it is up"


def test_a_start_that_fails_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Exception("The current node timed out")

    monkeypatch.setattr(engines, "RayEngine", refuse)
    recorded: list[PreflightError] = []
    with (
        pytest.raises(
            PreflightError, match=r"Ray did not start: .* timed out; --engine inline needs none"
        ) as found,
        running_engine("ray", RayConfig(start_timeout_s=7.0), StorageOptions(), record=recorded.append),
    ):
        raise AssertionError("it did not start")
    assert "ray.start_timeout_s is 7" in str(found.value)
    assert recorded == [found.value]
