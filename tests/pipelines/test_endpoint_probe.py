"""Whether a chat endpoint is there: one request to a real server on loopback."""

import socket

import pytest

from ovsops.errors import ConfigError
from pipelines.endpoint_config import EndpointConfig
from pipelines.endpoint_probe import endpoint_problem, models_url
from tests.pipelines.chat_server import Act, chat_server, sends, stalls

KEY = "sk-very-secret-0123456789"


@pytest.mark.parametrize("has_key", [True, False])
@pytest.mark.parametrize(
    ("act", "says"),
    [
        (sends(200, b'{"data": []}'), ("", "")),
        (sends(404), ("", "")),
        (sends(302, Location="http://127.0.0.1:9/"), ("", "")),
        (sends(401, KEY.encode()), ("the key in PROBE_KEY is refused", "set endpoint.key_from_env")),
        (sends(503, b"loading"), ("503: it is there, but not ready",) * 2),
    ],
    ids=["200", "404", "redirect", "401", "503"],
)
def test_what_the_server_answers(
    monkeypatch: pytest.MonkeyPatch, act: Act, says: tuple[str, str], has_key: bool
) -> None:
    monkeypatch.setenv("PROBE_KEY", KEY)
    with chat_server() as chat:
        chat.models = act
        config = EndpointConfig(url=chat.url, model="tiny", key_from_env="PROBE_KEY" if has_key else None)
        found = endpoint_problem(config)
    expected = says[0] if has_key else says[1]
    assert (expected in found) if expected else found == ""
    assert KEY not in found
    (headers,) = chat.probes
    assert headers.get("Authorization") == (f"Bearer {KEY}" if has_key else None)
    assert not chat.bodies


def test_nobody_is_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        found = endpoint_problem(EndpointConfig(url=url, model="tiny"))
    assert f"endpoint {url}: cannot be reached (ClientConnectorError); start the server" in found


def test_a_server_that_is_silent_is_not_waited_for() -> None:
    with chat_server() as chat:
        chat.models = stalls
        found = endpoint_problem(EndpointConfig(url=chat.url, model="tiny"), timeout_s=0.2)
    assert "no answer in 0.2 s" in found


def test_a_key_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROBE_KEY", raising=False)
    with pytest.raises(ConfigError, match="PROBE_KEY is not set"):
        endpoint_problem(EndpointConfig(url="http://127.0.0.1:9/v1", model="tiny", key_from_env="PROBE_KEY"))


@pytest.mark.parametrize("url", ["http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"])
def test_where_models_are_listed(url: str) -> None:
    assert models_url(EndpointConfig(url=url, model="tiny")) == "http://h/v1/models"
