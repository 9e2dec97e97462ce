"""Which regions are asked about, what it is counted as, and that nothing else carries images along."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from ovsops.errors import ConfigError
from ovsops.images.decode import DecodeConfig
from ovsops.regions.vlm_dialogue import parse_answer, verify_request
from pipelines.ask_config import AskConfig, Asking, choose_regions
from pipelines.endpoint import Endpoint, Question
from pipelines.endpoint_config import EndpointConfig, EndpointCounts, EndpointError
from pipelines.label import LabelJob
from pipelines.rows import ANNOTATED_ROW, ASKED_ROW, ENCODED_ROW, ENCODED_WITH_IMAGE
from pipelines.stages.annotate import AnnotateStage
from pipelines.stages.ask import AskStage
from pipelines.summary import EndpointBill, Limits, RunStats, summarise, unanswered_over_limit
from tests.pipelines.chat_server import chat_server, says
from tests.tiny.segmenters import CLASSES, ColourFactory
from tests.tiny.shards import draw_image, encode

ENDPOINT = EndpointConfig(url="http://127.0.0.1:9/v1", model="tiny", input_price=2.0, output_price=10.0)


def record(place: int, **fields: Any) -> dict[str, Any]:
    plain = {"verdict": None, "decision": "accept", "score": 0.5, "score_calibrated": None, "area": 10}
    return plain | {"place": place} | fields


RECORDS = [
    record(0, area=5, verdict="yes", score=0.9),
    record(1, area=50, verdict="unsure", decision="review", score=0.1, score_calibrated=0.8),
    record(2, area=20, score=0.3),
    record(3, area=50, verdict="no", decision="review", score=0.2),
]


@pytest.mark.parametrize(
    ("fields", "places", "num_left_out"),
    [
        ({}, [1, 3, 2, 0], 0),
        ({"max_regions": 2}, [1, 3], 2),
        ({"which": "review"}, [1, 3], 0),
        ({"which": "undecided"}, [1, 2], 0),
        ({"which": "undecided", "max_regions": 1, "first": "least_sure"}, [2], 1),
        ({"first": "least_sure"}, [3, 2, 1, 0], 0),
    ],
)
def test_regions_are_chosen_and_the_rest_is_counted(
    fields: dict[str, Any], places: list[int], num_left_out: int
) -> None:
    chosen, left_out = choose_regions(RECORDS, AskConfig(endpoint=ENDPOINT, **fields))
    assert [each["place"] for each in chosen] == places
    assert left_out == num_left_out


def test_counts_travel_and_add_up() -> None:
    one = EndpointCounts(questions=3, answered=1, input_tokens=1000, output_tokens=20, requests=5)
    one.failed.update({"E_ENDPOINT_TIMEOUT": 2})
    total = EndpointCounts.sum_of([one.to_json(), one.to_json()])
    assert total.failed == {"E_ENDPOINT_TIMEOUT": 4}
    assert (total.questions, total.answered, total.requests) == (6, 2, 10)
    assert total.cost(ENDPOINT) == pytest.approx(0.0044)
    assert EndpointCounts.sum_of([]) == EndpointCounts()


def test_the_bill_of_a_start_is_in_its_summary_and_no_other() -> None:
    bill = EndpointBill(config=ENDPOINT)
    stats = RunStats(endpoint=bill)
    stats.note_asked(
        {"asked": '{"questions": 4, "answered": 3, "failed": {"E_ENDPOINT_BUSY": 1}, "input_tokens": 7}'}
    )
    stats.note_asked({"asked": None})
    plain = summarise([], stats, pending=0, limits=Limits(), state="done")
    assert plain["this_run"]["endpoint"]["failed"] == {"E_ENDPOINT_BUSY": 1}
    assert plain["this_run"]["endpoint"]["cost"] == pytest.approx(14e-6)
    assert plain["over_limits"] == [
        "1 of 4 questions to tiny got no answer (25.00%; limits.max_unanswered_share is 5.00%)"
    ]
    assert not unanswered_over_limit(bill, Limits(max_unanswered_share=0.25))
    assert "endpoint" not in summarise([], RunStats(), pending=0, limits=Limits(), state="done")["this_run"]


def job(asking: Asking | None) -> LabelJob:
    return LabelJob(
        output="out",
        shards=(),
        annotator=ColourFactory(),
        segmenter_name="colour",
        classes=CLASSES,
        manifest={},
        ask=asking,
    )


def models_stage(made: LabelJob) -> AnnotateStage:
    (stage,) = made.steps("run")[0].stages
    assert isinstance(stage, AnnotateStage)
    return stage


def test_images_travel_only_where_somebody_is_asked() -> None:
    assert models_stage(job(None)).schema == ANNOTATED_ROW
    _, encode = job(None).steps("run")
    assert [stage.name for stage in encode.stages] == ["encode", "write"]
    asking = Asking(config=AskConfig(endpoint=ENDPOINT), language="en", nouns={}, rivals={})
    assert "image" in models_stage(job(asking)).schema.names
    _, encode, ask = job(asking).steps("run")
    assert [stage.name for stage in (*encode.stages, *ask.stages)] == ["encode", "ask", "write"]
    assert set(ASKED_ROW.names) - set(ENCODED_ROW.names) == {
        "asked",
        "ask_seconds",
        "ask_started",
        "ask_ended",
    }


def test_threads_share_one_purse() -> None:
    """Each answer costs 1: of 2 x 4 questions asked one by one on each side, what is allowed is 3."""
    usage = {"prompt_tokens": 500_000, "completion_tokens": 0}
    with chat_server(says('{"answer": "yes"}', usage)) as chat:
        config = EndpointConfig(url=chat.url, model="tiny", input_price=2.0, max_cost=3.0, concurrency=1)
        endpoint = Endpoint(config)
        asked = [Question(dialogue=verify_request("ball", view="crop"), jpeg=b"x", parse=parse_answer)] * 4
        counts = [EndpointCounts(), EndpointCounts()]
        with ThreadPoolExecutor(2) as pool:
            answers = list(pool.map(lambda own: endpoint.ask_all(asked, own), counts))
    failed = [error.code for each in answers for error in each if isinstance(error, EndpointError)]
    assert set(failed) == {"E_ENDPOINT_BUDGET"}
    assert 4 <= len(failed) <= 5, "both may have been on their way when the third was paid"
    assert sum(own.answered for own in counts) == endpoint.counts.answered == 8 - len(failed)
    assert endpoint.counts.questions == 8


def encoded(index: int, image: bytes | None, **fields: Any) -> dict[str, Any]:
    region = {
        "category_id": 1,
        "prompt": "red thing",
        "language": "en",
        "bbox": [2.0, 3.0, 10.0, 8.0],
        "segmentation": {"size": [48, 64], "counts": "0"},
        "area": 80,
        "score": 0.5,
        "rivals": [{"category_id": 7, "score": 0.25}],
        "verdict": "yes",
        "decision": "accept",
        "reason_codes": ["R_TINY"],
    }
    row = {"shard": "s", "index": index, "key": f"{index}", "image": image, "notes": ["N_EXIF"]}
    return row | {"regions": None if image is None else [region]} | fields


def test_an_image_that_cannot_be_read_again_costs_its_own_questions_and_other_rows_pass() -> None:
    jpeg = encode(draw_image(0))
    rows = [
        encoded(0, jpeg[: len(jpeg) // 2]),
        encoded(1, jpeg),
        encoded(2, None, error_code="E_TRUNCATED"),
        encoded(3, None, key=None, notes=[], closing="{}"),
    ]
    with chat_server(says('{"answer": "no"}')) as chat:
        endpoint = EndpointConfig(url=chat.url, model="tiny")
        config = AskConfig(endpoint=endpoint, captions=False, verify=True)
        asking = Asking(
            config=config, language="en", nouns={1: "red thing", 7: "wall"}, rivals={1: (), 7: ()}
        )
        stage = AskStage(pickle.loads(pickle.dumps(asking)), DecodeConfig(), decode_timeout_s=20.0)
        stage.setup()
        (table,) = stage.process(pa.Table.from_pylist(rows, schema=ENCODED_WITH_IMAGE))
        stage.decoder.close()
    assert table.schema == ASKED_ROW
    lost, answered, failed, closing = table.to_pylist()
    assert lost["regions"][0]["reason_codes"] == ["R_NO_ANSWER", "R_TINY"]
    assert (lost["regions"][0]["verdict"], lost["regions"][0]["decision"]) == ("yes", "accept")
    assert lost["notes"] == ["N_EXIF", "E_TRUNCATED:1"]
    assert lost["error_code"] is None
    record = answered["regions"][0]
    assert (record["verdict"], record["verdict_source"], record["decision"]) == ("no", "vlm:tiny", "review")
    assert answered["notes"] == ["N_EXIF"]
    assert (failed["error_code"], closing["closing"]) == ("E_TRUNCATED", "{}")
    counts = EndpointCounts.sum_of(row["asked"] for row in (lost, answered, failed, closing) if row["asked"])
    assert (counts.questions, counts.answered, dict(counts.failed)) == (2, 1, {"E_TRUNCATED": 1})
    (body,) = chat.bodies
    assert 'It may instead be: "wall"' in body["messages"][1]["content"][1]["text"]


def test_a_language_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ask\.language is empty"):
        AskConfig(endpoint=ENDPOINT, language=" ")
