"""A Ray that is slow to start is waited for as long as was asked, without a Ray."""

import logging
import os

import pytest
from ray._private import services

from pipelines import ray_start
from pipelines.ray_start import patient_start


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that were asked; the node is there at the fourth time."""
    asked: list[str] = []

    def look(address: str, node: str) -> dict[str, str]:
        asked.append(address)
        if len(asked) < 4:
            raise RuntimeError("no node info yet")
        return {"node": node}

    monkeypatch.setattr(services, "get_node", look)
    monkeypatch.setattr(ray_start, "POLL_S", 0.001)
    return asked


def test_the_node_is_waited_for(looks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_gcs_server_port_wait_time_s", "17")
    monkeypatch.delenv("RAY_raylet_start_wait_time_s", raising=False)
    theirs, level = services.get_node, logging.getLogger("ray").level
    with patient_start(60.0):
        assert services.get_node("here", "one") == {"node": "one"}
        assert os.environ["RAY_gcs_server_port_wait_time_s"] == "17", "what the environment says stands"
        assert os.environ["RAY_raylet_start_wait_time_s"] == "60"
        assert not logging.getLogger("ray._private.utils").isEnabledFor(logging.WARNING)
    assert looks == ["here"] * 4
    assert services.get_node is theirs
    assert "RAY_raylet_start_wait_time_s" not in os.environ
    assert logging.getLogger("ray").level == level


def test_not_for_ever(looks: list[str]) -> None:
    with pytest.raises(RuntimeError, match="no node info yet"), patient_start(0.0):
        services.get_node("here", "one")
    assert looks == ["here"]
