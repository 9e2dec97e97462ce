"""Storage that does not keep its promises is told apart."""

from pathlib import Path

import pytest

from jobs.doctor import storage_checks
from ovsops.errors import StorageError
from pipelines.storage import Storage, open_storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path))


def test_a_good_place_passes_and_is_left_empty(storage: Storage, tmp_path: Path) -> None:
    assert all(check.ok for check in storage_checks(storage))
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ignores_the_condition_is_found(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(path: str, data: bytes) -> bool:
        storage.put(path, data)
        return True

    monkeypatch.setattr(storage, "create", create)
    good, bad = storage_checks(storage)
    assert good.ok
    assert not bad.ok
    assert "ignores If-None-Match" in bad.says


def test_a_place_that_refuses_is_told_without_its_secret(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def put(path: str, data: bytes) -> None:
        raise StorageError("403 for AKIAIOSFODNN7EXAMPLE")

    monkeypatch.setattr(storage, "put", put)
    first, _ = storage_checks(storage)
    assert not first.ok
    assert first.says == "403 for [redacted]"
