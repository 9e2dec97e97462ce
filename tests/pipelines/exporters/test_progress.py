"""An export says how far it is, at most every ten seconds."""

import logging

import pytest

from pipelines.exporters.progress import ExportProgress


def test_a_line_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    progress = ExportProgress(images=40, shards=2, clock=lambda: now[0])
    with caplog.at_level(logging.INFO, "pipelines.exporters.progress"):
        for _ in range(10):
            now[0] += 3.0
            progress.image()
    told = [record.getMessage() for record in caplog.records]
    assert told == [
        "exported 4 of 40 images, 0 of 2 shards, in 12 s; about 108 s left",
        "exported 8 of 40 images, 0 of 2 shards, in 24 s; about 96 s left",
    ]
    progress.shard()
    assert progress.line(now[0]).startswith("exported 10 of 40 images, 1 of 2 shards")


def test_an_empty_run_divides_by_nothing() -> None:
    assert "about 0 s left" in ExportProgress(images=0, shards=0).line(1e9)
