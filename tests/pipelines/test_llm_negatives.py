import json
from typing import Any

import pytest

from ovsops.errors import ConfigError, RowError
from ovsops.negatives.candidates import CandidateNegatives
from ovsops.negatives.llm_requests import LlmConfig
from pipelines.endpoint_config import EndpointConfig, EndpointError
from pipelines.llm_batch import VllmConfig, check_vllm, llm_stage, processor_config, reply_row, request_row
from pipelines.llm_negatives import Caption, LlmNegatives
from tests.pipelines.chat_server import (
    ChatServer,
    Handler,
    chat_server,
    closes,
    completion,
    says,
    sends,
    stalls,
)

CONFIG = LlmConfig(num_asked=10)
COLOURS = ("blue", "green", "black", "white", "purple", "pink", "grey", "teal", "navy", "gold")
ENTRIES = [{"text": f"a {colour} ball", "type": "colour"} for colour in COLOURS]
GOOD = json.dumps({"negatives": ENTRIES})
USAGE = {"prompt_tokens": 300, "completion_tokens": 200}


def endpoint(chat: ChatServer, **fields: Any) -> EndpointConfig:
    quick = {"first_wait_s": 0.01, "longest_wait_s": 0.05, "input_price": 2.0, "output_price": 10.0}
    return EndpointConfig(**{"url": chat.url, "model": "tiny", **quick, **fields})


def captions(count: int, text: str = "a red ball") -> list[Caption]:
    return [Caption(key=f"r{i}", text=text, language="en", known=("a toy",)) for i in range(count)]


def test_answers_become_candidates_and_cost_is_counted() -> None:
    with chat_server(says(GOOD, USAGE)) as chat:
        writer = LlmNegatives(endpoint(chat), CONFIG)
        found = writer.ask(captions(3))
    assert all(isinstance(each, CandidateNegatives) for each in found)
    assert [each.key for each in found] == ["r0", "r1", "r2"]  # type: ignore[union-attr]
    assert writer.counts.negatives == 30
    assert writer.counts.endpoint.cost(writer.endpoint.config) == pytest.approx(
        3 * (300 * 2 + 200 * 10) / 1e6
    )
    body = chat.bodies[0]
    (text,) = body["messages"][1]["content"]
    assert text["type"] == "text"  # no picture goes along
    assert '"a red ball"' in text["text"]
    assert body["response_format"]["json_schema"]["schema"]["properties"]["negatives"]["minItems"] == 10


def test_busy_servers_are_asked_again_and_bad_answers_once_more() -> None:
    with chat_server(sends(429), closes, says("Sure!", USAGE), says(GOOD, USAGE)) as chat:
        writer = LlmNegatives(endpoint(chat), CONFIG)
        (found,) = writer.ask(captions(1))
    assert isinstance(found, CandidateNegatives)
    counts = writer.counts
    assert (counts.endpoint.requests, counts.endpoint.retries, counts.endpoint.reasked) == (4, 2, 1)
    assert counts.refused == {"L_NOT_JSON": 1}
    assert counts.endpoint.input_tokens == 600  # the bad answer is paid for


def test_an_answer_of_another_number_twice_is_an_error_with_its_reason() -> None:
    with chat_server(says(json.dumps({"negatives": ENTRIES[:9]}))) as chat:
        writer = LlmNegatives(endpoint(chat), CONFIG)
        (found,) = writer.ask(captions(1))
    assert isinstance(found, EndpointError)
    assert found.code == "E_ENDPOINT_REPLY"
    assert "9 negatives, 10 were asked for" in str(found)
    assert writer.counts.refused == {"L_COUNT": 2}


def test_a_silent_server_costs_its_question_alone() -> None:
    def act(handler: Handler) -> None:
        if "a black cat" in json.dumps(handler.body):
            stalls(handler)
        else:
            handler.send(200, completion(GOOD, USAGE))

    with chat_server(act) as chat:
        writer = LlmNegatives(endpoint(chat, read_timeout_s=0.3, max_attempts=1), CONFIG)
        found = writer.ask([*captions(2), *captions(1, "a black cat"), *captions(1)])
    assert [type(each).__name__ for each in found] == [
        "CandidateNegatives",
        "CandidateNegatives",
        "EndpointError",
        "CandidateNegatives",
    ]
    assert writer.counts.endpoint.failed == {"E_ENDPOINT_TIMEOUT": 1}


def test_no_more_than_allowed_are_asked_at_a_time() -> None:
    with chat_server(says(GOOD)) as chat:
        LlmNegatives(endpoint(chat, concurrency=3), CONFIG).ask(captions(24))
    assert len(chat.bodies) == 24
    assert chat.most_at_once <= 3


def test_captions_that_are_none_are_not_sent() -> None:
    with chat_server(says(GOOD)) as chat:
        writer = LlmNegatives(endpoint(chat), CONFIG)
        found = writer.ask([*captions(1, "<b>red</b>"), *captions(1), *captions(1, "红色的球")])
        assert writer.ask([]) == []
    assert len(chat.bodies) == 1
    assert isinstance(found[0], RowError)
    assert found[0].code == "R_MARKUP"
    assert isinstance(found[1], CandidateNegatives)
    assert writer.counts.refused == {"R_MARKUP": 1, "R_LANGUAGE_MISMATCH": 1}


def test_when_the_money_is_spent_no_more_is_asked() -> None:
    with chat_server(says(GOOD, {"prompt_tokens": 0, "completion_tokens": 100_000})) as chat:
        writer = LlmNegatives(endpoint(chat, max_cost=1.5, concurrency=1), CONFIG)
        found = writer.ask(captions(4))
    assert len(chat.bodies) == 2
    assert [getattr(each, "code", "") for each in found] == ["", "", "E_ENDPOINT_BUDGET", "E_ENDPOINT_BUDGET"]


VLLM = VllmConfig(
    model="/models/chat", revision="a" * 40, gpus_per_replica=2, replicas=3, accelerator_type="H100"
)


def test_the_engine_as_ray_takes_it() -> None:
    """Ray's own class accepts every field; the engine itself needs vLLM and a GPU."""
    made = processor_config(VLLM)
    assert type(made).__name__ == "vLLMEngineProcessorConfig"
    assert made.model_source == "/models/chat"
    assert made.get_concurrency() == {"min_size": 3, "max_size": 3}
    assert made.engine_kwargs["tensor_parallel_size"] == 2
    assert made.engine_kwargs["trust_remote_code"] is False
    assert made.engine_kwargs["revision"] == "a" * 40
    assert made.should_continue_on_error


def test_without_vllm_a_run_says_so_before_it_starts() -> None:
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        check_vllm()
    with pytest.raises(ConfigError, match="vLLM is not installed"):
        llm_stage(VLLM, CONFIG)


def test_rows_of_the_batch_stage() -> None:
    row = {"key": "r", "text": "a red ball", "language": "en", "known": ["a toy"]}
    asked = request_row(row, VLLM, CONFIG)
    assert [message["role"] for message in asked["messages"]] == ["system", "user"]
    grammar = json.loads(asked["sampling_params"]["structured_outputs"]["json"])
    assert grammar["required"] == ["negatives"]
    answered = asked | {"generated_text": GOOD, "num_input_tokens": 300, "num_generated_tokens": 200}
    done = reply_row(answered, CONFIG)
    assert done["negatives"][0] == "a blue ball"
    assert (done["types"][0], done["error_code"]) == ("colour", None)
    assert VllmConfig(model="m", input_price=2.0, output_price=10.0).cost(
        done["input_tokens"], done["output_tokens"]
    ) == pytest.approx(0.0026)
    refused = reply_row(answered | {"generated_text": "no"}, CONFIG)
    assert (refused["error_code"], refused["refused"]) == ("E_LLM_REPLY", ["L_NOT_JSON"])
    assert refused["output_tokens"] == 200  # is paid for
    failed = reply_row(answered | {"__inference_error__": "out of memory"}, CONFIG)
    assert (failed["error_code"], failed["error"], failed["negatives"]) == ("E_LLM", "out of memory", [])
    with pytest.raises(ConfigError, match="R_MARKUP"):
        request_row(row | {"text": "<b>"}, VLLM, CONFIG)


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"model": " "}, "model is empty"),
        ({"replicas": 0}, "llm.vllm.replicas is 0"),
        ({"revision": "main"}, "a commit of 40 hex digits"),
        ({"max_model_len": 1000}, "no room for a question"),
        ({"input_price": -1.0}, "input_price"),
    ],
)
def test_settings_that_cannot_be(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        VllmConfig(**{"model": "m", **fields})
