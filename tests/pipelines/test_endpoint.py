import asyncio
import base64
import email.utils
import json
import logging
import socket
import time

import pytest

from ovsops.errors import ConfigError
from ovsops.regions.vlm_dialogue import VlmAnswer, parse_answer, verify_request
from pipelines.endpoint import Endpoint, Question
from pipelines.endpoint_config import EndpointConfig, EndpointError
from tests.pipelines.chat_server import ChatServer, chat_server, closes, drips, floods, says, sends, stalls

KEY = "sk-very-secret-0123456789"
YES = '{"answer": "yes", "reason": "it is red"}'


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VLM_KEY", KEY)


def config(chat: ChatServer | None = None, **fields) -> EndpointConfig:
    quick = {"first_wait_s": 0.01, "longest_wait_s": 0.2, "read_timeout_s": 60.0, "request_timeout_s": 60.0}
    base = {
        "url": chat.url if chat else "http://127.0.0.1:9/v1",
        "model": "tiny",
        "key_from_env": "MY_VLM_KEY",
    }
    return EndpointConfig(**{**base, **quick, **fields})


def questions(number: int = 1) -> list[Question[VlmAnswer]]:
    return [
        Question(dialogue=verify_request(f"ball {i}", view="crop"), jpeg=b"\xff\xd8jpeg", parse=parse_answer)
        for i in range(number)
    ]


def ask(endpoint: Endpoint, number: int = 1) -> list:
    answers = endpoint.ask_all(questions(number))
    counts = endpoint.counts
    assert len(answers) == number
    assert counts.questions == counts.answered + sum(counts.failed.values())
    return answers


def failure(chat: ChatServer, **fields) -> EndpointError:
    (error,) = ask(Endpoint(config(chat, **fields)))
    assert isinstance(error, EndpointError)
    return error


def test_a_question_carries_picture_grammar_and_key() -> None:
    with chat_server(says(YES, {"prompt_tokens": 900, "completion_tokens": 100})) as chat:
        endpoint = Endpoint(config(chat, input_price=2.0, output_price=10.0, seed=7))
        (answer,) = ask(endpoint)
    assert answer == VlmAnswer(answer="yes", reason="it is red")
    (body,) = chat.bodies
    assert chat.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in json.dumps(body)
    picture, text = body["messages"][1]["content"]
    assert (
        base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        == b"\xff\xd8jpeg"
    )
    assert '"ball 0"' in text["text"]
    assert body["response_format"]["json_schema"]["strict"] is True
    assert (body["model"], body["seed"], body["temperature"], body["max_tokens"]) == ("tiny", 7, 0.0, 400)
    assert (endpoint.counts.input_tokens, endpoint.counts.output_tokens) == (900, 100)
    assert endpoint.counts.cost(endpoint.config) == pytest.approx(0.0028)


def test_without_a_key_none_is_sent_and_formats_can_be_left_out() -> None:
    with chat_server(says(YES)) as chat:
        ask(Endpoint(config(chat, key_from_env=None, reply_format="text", temperature=None)))
    assert "Authorization" not in chat.headers[0]
    assert not {"response_format", "temperature", "seed"} & set(chat.bodies[0])


def test_answers_keep_their_order_and_concurrency_its_bound() -> None:
    def slow(handler) -> None:
        asked = handler.chat.bodies[-1]["messages"][1]["content"][1]["text"]
        time.sleep(0.03)
        says(json.dumps({"answer": "yes", "reason": asked[asked.index("ball") :][:6].strip('"')}))(handler)

    def patient(handler) -> None:
        time.sleep(0.2)
        says(YES)(handler)

    with chat_server(patient) as chat:
        answers = ask(Endpoint(config(chat, concurrency=3)), 12)
    assert all(isinstance(answer, VlmAnswer) for answer in answers)
    assert 1 < chat.most_at_once <= 3
    with chat_server(slow) as chat:
        answers = ask(Endpoint(config(chat, concurrency=1)), 4)
    assert [answer.reason for answer in answers] == ["ball 0", "ball 1", "ball 2", "ball 3"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_crowded_server_is_asked_again(status: int) -> None:
    with chat_server(sends(status, b"busy"), sends(status), says(YES)) as chat:
        endpoint = Endpoint(config(chat))
        (answer,) = ask(endpoint)
    assert isinstance(answer, VlmAnswer)
    assert (endpoint.counts.requests, endpoint.counts.retries) == (3, 2)


def test_attempts_are_bounded_and_nothing_is_lost() -> None:
    with chat_server(sends(503, b"overloaded")) as chat:
        endpoint = Endpoint(config(chat, max_attempts=3))
        answers = ask(endpoint, 4)
    assert [error.code for error in answers] == ["E_ENDPOINT_BUSY"] * 4
    assert "503: 'overloaded' after 3 attempts" in str(answers[0])
    assert len(chat.bodies) == 12
    assert endpoint.counts.failed == {"E_ENDPOINT_BUSY": 4}


def test_retry_after_is_honoured_up_to_the_cap() -> None:
    with chat_server(sends(429, Retry_After="1"), says(YES)) as chat:
        ask(Endpoint(config(chat, longest_wait_s=2.0)))
    assert chat.times[1] - chat.times[0] >= 1.0
    with chat_server(sends(429, Retry_After="3600"), says(YES)) as chat:
        ask(Endpoint(config(chat, longest_wait_s=0.3)))
    assert 0.3 <= chat.times[1] - chat.times[0] < 600


@pytest.mark.parametrize(
    "value",
    [
        "-5",
        "soon",
        "1e9",
        "9" * 400,
        "",
        email.utils.formatdate(time.time() - 999, usegmt=True),
        "Thu, 99 Foo",
    ],
    ids=["negative", "word", "float", "long", "empty", "past date", "no date"],
)
def test_a_retry_after_that_says_nothing_costs_nothing(value: str) -> None:
    with chat_server(sends(429, Retry_After=value), says(YES)) as chat:
        (answer,) = ask(Endpoint(config(chat)))
    assert isinstance(answer, VlmAnswer)
    assert chat.times[1] - chat.times[0] < 600


def test_a_date_in_retry_after_is_waited_for() -> None:
    when = email.utils.formatdate(time.time() + 3600, usegmt=True)
    with chat_server(sends(429, Retry_After=when), says(YES)) as chat:
        ask(Endpoint(config(chat, longest_wait_s=0.4)))
    assert chat.times[1] - chat.times[0] >= 0.4


def test_a_server_that_stalls_is_left() -> None:
    start = time.monotonic()
    with chat_server(stalls) as chat:
        endpoint = Endpoint(config(chat, read_timeout_s=0.2, max_attempts=2))
        (error,) = ask(endpoint)
    assert error.code == "E_ENDPOINT_TIMEOUT"
    assert time.monotonic() - start < 60
    assert endpoint.counts.requests == 2


def test_a_server_that_drips_is_left_too() -> None:
    with chat_server(drips) as chat:
        error = failure(chat, request_timeout_s=0.4, max_attempts=1)
    assert error.code == "E_ENDPOINT_TIMEOUT"


def test_the_deadline_ends_a_question_whatever_attempts_are_left() -> None:
    start = time.monotonic()
    with chat_server(sends(500)) as chat:
        error = failure(chat, deadline_s=0.5, max_attempts=1000, longest_wait_s=0.2)
    assert "the 0.5 s for a question are over" in str(error)
    assert time.monotonic() - start < 60
    with chat_server(drips) as chat:
        assert failure(chat, deadline_s=0.4, max_attempts=1000).code == "E_ENDPOINT_TIMEOUT"


def test_a_body_that_ends_early_is_asked_for_again() -> None:
    with chat_server(closes, says(YES)) as chat:
        assert isinstance(ask(Endpoint(config(chat)))[0], VlmAnswer)
    with chat_server(closes) as chat:
        assert failure(chat, max_attempts=2).code == "E_ENDPOINT_UNREACHABLE"


def test_nobody_there_is_told_without_trying_every_question() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        endpoint = Endpoint(config(url=url, max_attempts=2, give_up_after=3, concurrency=1))
        answers = ask(endpoint, 50)
    assert {error.code for error in answers} == {"E_ENDPOINT_UNREACHABLE"}
    assert endpoint.counts.requests == 6
    assert "not sent, as 3 questions in a row got no answer" in str(answers[-1])


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        '{"answer": "yes"',
        '{"answer": "maybe"}',
        "",
        None,
        7,
        {"a": 1},
        "[" * 10_000,
        '{"answer": "y\\ud800"}',
    ],
)
def test_broken_json_is_asked_again_once(content) -> None:
    with chat_server(says(content), says(YES)) as chat:
        endpoint = Endpoint(config(chat))
        assert isinstance(ask(endpoint)[0], VlmAnswer)
    assert endpoint.counts.reasked == 1
    assert "cannot be used" in chat.bodies[1]["messages"][1]["content"][2]["text"]
    with chat_server(says(content)) as chat:
        endpoint = Endpoint(config(chat))
        (error,) = ask(endpoint)
    assert error.code == "E_ENDPOINT_REPLY"
    assert len(chat.bodies) == 2
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<html>hello</html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": "x"}',
        b"\xff\xfe",
        b"[" * 99_999,
    ],
)
def test_what_is_no_chat_completion_is_a_broken_reply(data: bytes) -> None:
    with chat_server(sends(200, data)) as chat:
        error = failure(chat)
    assert error.code == "E_ENDPOINT_REPLY"
    assert "asked twice" in str(error)


def test_a_reply_without_end_is_cut_off() -> None:
    start = time.monotonic()
    with chat_server(floods) as chat:
        error = failure(chat, max_reply_bytes=100_000)
    assert error.code == "E_ENDPOINT_REPLY"
    assert "longer than 100000 bytes" in str(error)
    assert time.monotonic() - start < 60


def test_a_redirect_is_refused() -> None:
    with chat_server(sends(307, Location="http://127.0.0.1:1/steal"), says(YES)) as chat:
        error = failure(chat)
    assert error.code == "E_ENDPOINT_STATUS"
    assert "redirects (307), which is refused" in str(error)
    assert len(chat.bodies) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 501])
def test_what_asking_again_will_not_change_is_not_asked_again(status: int) -> None:
    with chat_server(sends(status, b"no such \x1b[31mmodel")) as chat:
        error = failure(chat)
    assert error.code == "E_ENDPOINT_STATUS"
    assert f"{status}: 'no such [31mmodel'" in str(error)
    assert len(chat.bodies) == 1


def test_a_refused_key_stops_the_batch() -> None:
    with chat_server(sends(401, b"bad key")) as chat:
        endpoint = Endpoint(config(chat, concurrency=1))
        answers = ask(endpoint, 20)
    assert {error.code for error in answers} == {"E_ENDPOINT_DENIED"}
    assert "check the key in MY_VLM_KEY" in str(answers[0])
    assert len(chat.bodies) == 1


def test_money_is_bounded() -> None:
    with chat_server(says(YES, {"prompt_tokens": 1_000_000, "completion_tokens": 0})) as chat:
        endpoint = Endpoint(config(chat, input_price=1.0, max_cost=2.0, concurrency=1))
        answers = ask(endpoint, 5)
    assert [isinstance(answer, VlmAnswer) for answer in answers] == [True, True, False, False, False]
    assert answers[-1].code == "E_ENDPOINT_BUDGET"


@pytest.mark.parametrize(
    "usage", [None, 3, {"prompt_tokens": -1}, {"prompt_tokens": True, "completion_tokens": 1e30}]
)
def test_a_strange_usage_is_counted_as_missing(usage) -> None:
    with chat_server(says(YES, usage)) as chat:
        endpoint = Endpoint(config(chat))
        ask(endpoint)
    assert endpoint.counts.replies_without_usage == 1
    assert endpoint.counts.input_tokens == endpoint.counts.output_tokens == 0


def test_the_key_is_in_no_log_error_or_answer(caplog: pytest.LogCaptureFixture) -> None:
    echo = f"you sent Bearer {KEY}".encode()
    with caplog.at_level(logging.DEBUG):
        said = []
        for script in (
            [sends(401, echo)],
            [sends(500, echo)],
            [sends(400, echo * 100)],
            [says(f"key {KEY}")],
            [says(json.dumps({"answer": "yes", "reason": KEY}))],
            [sends(302, Location=f"http://127.0.0.1/{KEY}")],
            [sends(200, echo)],
            [closes],
        ):
            with chat_server(*script) as chat:
                endpoint = Endpoint(config(chat, max_attempts=2))
                (answer,) = ask(endpoint)
            said += [
                str(answer),
                repr(answer),
                repr(endpoint.config),
                repr(endpoint.counts),
                repr(vars(endpoint)),
            ]
            if isinstance(answer, EndpointError):
                said += [repr(answer.__cause__), repr(answer.args)]
    assert KEY not in "\n".join(said)
    assert KEY not in caplog.text
    assert not any(KEY in repr(vars(record)) for record in caplog.records)
    assert any("without an answer" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("value", ["", "  ", "two words", "line\r\nX-Evil: 1", "ключ"])
def test_a_variable_that_holds_no_key_is_told_by_name_only(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_VLM_KEY", value)
    with pytest.raises(ConfigError, match="environment variable MY_VLM_KEY") as caught:
        Endpoint(config())
    assert not value.strip() or value.strip() not in str(caught.value)


def test_it_works_inside_a_running_event_loop_and_with_no_questions() -> None:
    with chat_server(says(YES)) as chat:
        endpoint = Endpoint(config(chat))

        async def inside() -> list:
            return endpoint.ask_all(questions(2))

        assert len(asyncio.run(inside())) == 2
        assert endpoint.ask_all([]) == []


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"url": "ftp://x/v1"}, "endpoint.url must be"),
        ({"url": "http://user:pass@host/v1"}, "without user, password"),
        ({"url": "https://host/v1?key=abc"}, "without user, password, query"),
        ({"url": "http://host:99999/v1"}, "endpoint.url must be"),
        ({"url": "http:///v1"}, "endpoint.url must be"),
        ({"url": "http://vlm.example/v1"}, "would travel unencrypted"),
        ({"model": " "}, "endpoint.model"),
        ({"key_from_env": "sk-123"}, "the NAME of the variable"),
        ({"concurrency": 0}, "endpoint.concurrency"),
        ({"deadline_s": 0.0}, "endpoint.deadline_s"),
        ({"read_timeout_s": float("inf")}, "endpoint.read_timeout_s"),
        ({"longest_wait_s": 0.001}, "longest_wait_s"),
        ({"max_cost": 3.0}, "needs input_price"),
        ({"input_price": -1.0}, "endpoint.input_price"),
    ],
)
def test_nonsense_in_a_config_is_refused_without_repeating_secrets(fields, match: str) -> None:
    with pytest.raises(ConfigError, match=match) as caught:
        config(**fields)
    assert "pass@" not in str(caught.value)
    assert "abc" not in str(caught.value)
    assert "sk-123" not in str(caught.value)


def test_a_key_may_go_over_a_network_of_ones_own() -> None:
    assert config(url="http://vlm.internal:8000/v1", allow_key_over_http=True).source == "vlm:tiny"
    assert config(url="http://[::1]:8000/v1/").completions_url == "http://[::1]:8000/v1/chat/completions"
    assert config(url="https://vlm.example/v1/chat/completions").completions_url.count("chat") == 1
    assert config(url="http://vlm.example/v1", key_from_env=None).key() is None


def test_no_field_of_the_config_is_taken_for_a_secret() -> None:
    from jobs.recipe_text import SECRET_KEY

    assert [name for name in EndpointConfig.__dataclass_fields__ if SECRET_KEY.search(name)] == []
