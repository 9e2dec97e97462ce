"""Three nights in a row: new shards, a changed checkpoint, a kill; and two nights at once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ovsops.backbones.untrained import write_untrained_checkpoints
from pipelines.ledger import Ledger
from pipelines.lock import LOCK, OutputLock
from pipelines.storage import open_storage
from tests.jobs.conftest import plain_recipe
from tests.tiny.deaths import files_of
from tests.tiny.shards import draw_image, encode, write_tar

Call = Callable[..., tuple[int, str, str]]
INLINE = ("--engine", "inline")
IMAGES = 24
"""In each shard: enough for drift to be tested."""


def shard(folder: Path, number: int, *, name: str | None = None, images: int = IMAGES) -> Path:
    """An archive of drawn pictures that no other number has."""
    members = [
        (f"{number:03d}-{i:03d}.jpg", encode(draw_image(1000 * number + i), quality=92))
        for i in range(images)
    ]
    return write_tar(folder / (name or f"shard-{number:03d}.tar"), members)


class Nights:
    """A folder with a corpus, a canary, checkpoints, and a nightly recipe over them."""

    def __init__(self, root: Path, checkpoints: Path, ovsops: Call) -> None:
        self.root, self.ovsops = root, ovsops
        self.checkpoints = root / "checkpoints"
        shutil.copytree(checkpoints, self.checkpoints)
        shard(root / "canary", 99, images=4)
        self.out = root / "nights-out"

    def recipe(self, **changes: Any) -> Path:
        label = plain_recipe(self.root, self.checkpoints, batch={"max_images": 8, "decode_workers": 1})
        del label["output"]
        plain = {
            "job": "nightly",
            "output": str(self.out),
            "label": label,
            "canary": {"shards": str(self.root / "canary" / "*.tar")},
            "watch": {"diff": {"drift": {"num_permutations": 1999}}},
        }
        path = self.root / "nightly.yaml"
        path.write_text(yaml.safe_dump(plain | changes))
        return path

    def run(self, night: str, *words: str, code: int = 0, **changes: Any) -> dict[str, Any]:
        """A night that must end with `code`; its line."""
        found, out, err = self.ovsops("nightly", self.recipe(**changes), "--night", night, *INLINE, *words)
        assert found == code, err
        alert: dict[str, Any] = json.loads(out.splitlines()[-1])
        assert alert["exit_code"] == code
        return alert

    def labelled(self, night: str) -> dict[str, int]:
        """Images by shard that a night's own output holds."""
        storage = open_storage(str(self.out / "nights" / night / "label"))
        return {commit.name: commit.read for commit in Ledger(storage).read_all()}

    def files(self, night: str) -> dict[str, bytes]:
        """What a night's labels are, but for what says when and how."""
        return files_of(self.out / "nights" / night / "label")

    def change_mapper(self) -> None:
        """Other weights at the same place."""
        write_untrained_checkpoints(self.root / "others", seed=77)
        shutil.rmtree(self.checkpoints / "mapper")
        shutil.copytree(self.root / "others" / "mapper", self.checkpoints / "mapper")


@pytest.fixture
def nights(tmp_path: Path, checkpoints: Path, ovsops: Call) -> Nights:
    return Nights(tmp_path, checkpoints, ovsops)


def kill_when(nights: Nights, night: str, sign: Callable[[], bool]) -> None:
    """Start a night as a process of its own and kill it as soon as `sign` is there."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OVSOPS_CACHE": str(nights.root / "cache")}
    words = ["-m", "jobs.cli", "nightly", str(nights.recipe()), "--night", night, *INLINE]
    with subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        patience = time.monotonic() + 240
        while not sign() and process.poll() is None and time.monotonic() < patience:
            time.sleep(0.002)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert sign()


@pytest.mark.kill
def test_three_nights_in_a_row(nights: Nights) -> None:
    corpus = nights.root / "in"
    shard(corpus, 1)
    shard(corpus, 2)
    first = nights.run("one")
    assert first["state"] == "done"
    assert nights.labelled("one") == {"shard-001.tar": IMAGES, "shard-002.tar": IMAGES}
    assert first["images"]["read"] == first["steps"]["label"]["images_this_start"] == 2 * IMAGES
    assert not first["canary"]["differs"]
    assert first["drift"]["not_tested"]

    shard(corpus, 3)
    nights.change_mapper()
    second = nights.run("two", code=3)
    assert second["state"] == "attention"
    assert nights.labelled("two") == {"shard-003.tar": IMAGES}
    assert second["steps"]["label"]["images_this_start"] == IMAGES
    assert [change["name"] for change in second["changed"]["checkpoint"]] == ["mapper"]
    assert second["changed"]["recipe"] == second["changed"]["code"] == []
    assert second["canary"]["differs"]
    assert "checkpoint mapper" in second["canary"]["why"]
    assert second["drift"]["alarm"]
    assert second["drift"]["suspects"][0] == "checkpoint"
    assert "labelling itself changed" in second["drift"]["why"][0]
    assert "checkpoint mapper" in second["drift"]["named"]
    assert any("checkpoint mapper" in alarm for alarm in second["alarms"])

    shard(corpus, 4)
    parts = nights.out / "nights" / "three" / "label" / "_parts"
    kill_when(nights, "three", lambda: any(parts.rglob("*.parquet")))
    assert not (nights.out / "ledger" / "three.json").exists()
    assert (nights.out / LOCK).exists(), "a killed night leaves its lock, which the next start takes over"
    third = nights.run("three")
    assert third["state"] == "done"
    assert nights.labelled("three") == {"shard-004.tar": IMAGES}
    assert third["steps"]["label"]["images_this_start"] <= IMAGES
    assert not third["canary"]["differs"]
    assert third["canary"]["compared_with"] == "two"
    assert not third["drift"]["alarm"]
    assert third["changed"] == {"checkpoint": [], "recipe": [], "code": []}
    assert not (nights.out / LOCK).exists()

    killed = nights.files("three")
    shutil.rmtree(nights.out / "nights" / "three")
    for place in ("plans", "ledger"):
        (nights.out / place / "three.json").unlink()
    nights.run("three")
    assert nights.files("three") == killed, "a killed night ends as one that was left alone"

    fourth = nights.run("four")
    assert fourth["state"] == "nothing new"
    assert fourth["images"] == {}


def test_two_at_once(nights: Nights) -> None:
    shard(nights.root / "in", 1, images=2)
    with OutputLock(open_storage(str(nights.out))):
        alert = nights.run("one", code=5)
    assert alert["state"] == "locked"
    assert f"process {os.getpid()}" in alert["error"]
    assert "heartbeat" in alert["error"]
    assert not (nights.out / "nights").exists()
