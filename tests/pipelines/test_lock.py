"""One run per output, and a way in after a crash."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from ovsops.errors import OutputError, StorageError
from pipelines.lock import LOCK, STALE_AFTER_S, OutputLock
from pipelines.storage import StorageOptions, open_storage


@pytest.fixture
def storage(tmp_path: Path):
    return open_storage(str(tmp_path), StorageOptions())


def holder(**changes: object) -> bytes:
    me = psutil.Process()
    record = {
        "token": "other",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": me.create_time(),
        "heartbeat": time.time(),
    }
    return json.dumps(record | changes).encode()


def test_a_second_run_is_told_who_holds_the_lock(storage) -> None:
    with (
        OutputLock(storage),
        pytest.raises(OutputError, match=f"used by process {os.getpid()}"),
        OutputLock(storage),
    ):
        pass
    assert not storage.exists(LOCK)


def test_a_lock_of_a_dead_process_is_taken_over(storage) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    storage.put(LOCK, holder(pid=dead.pid))
    with OutputLock(storage) as lock:
        assert json.loads(storage.read(LOCK))["token"] == lock.token


def test_a_reused_pid_is_another_process(storage) -> None:
    storage.put(LOCK, holder(started=psutil.Process().create_time() - 1000))
    with OutputLock(storage):
        pass


def test_another_host_is_believed_until_its_heartbeat_is_old(storage) -> None:
    storage.put(LOCK, holder(host="elsewhere"))
    with pytest.raises(OutputError, match="on elsewhere"), OutputLock(storage):
        pass
    storage.put(LOCK, holder(host="elsewhere", heartbeat=time.time() - STALE_AFTER_S - 1))
    with OutputLock(storage):
        pass


def test_an_owner_that_lost_its_lock_stops_before_it_commits(storage, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.lock.HEARTBEAT_S", 0.01)
    with OutputLock(storage) as lock:
        storage.put(LOCK, holder())
        assert lock.lost.wait(5)
        with pytest.raises(OutputError, match="took over"):
            lock.check()
    assert json.loads(storage.read(LOCK))["token"] == "other"


def test_a_heartbeat_that_cannot_be_written_goes_on_until_the_lock_is_stale(storage, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.lock.HEARTBEAT_S", 0.01)
    monkeypatch.setattr("pipelines.lock.STALE_AFTER_S", 0.2)
    with OutputLock(storage) as lock:
        put = storage.put

        def refuse(path: str, data: bytes) -> None:
            raise StorageError("the disk is away")

        monkeypatch.setattr(storage, "put", refuse)
        time.sleep(0.05)
        assert not lock.lost.is_set()
        assert lock.lost.wait(5)
        monkeypatch.setattr(storage, "put", put)
