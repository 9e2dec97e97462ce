"""Negatives by a model that a batch stage runs: asked ahead, stored shard by shard, never asked twice.

The stage is a function here, or Ray's own with another engine in the place of vLLM.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import pipelines.llm_asking
from ovsops.errors import ConfigError
from ovsops.negatives.config import NegativeConfig
from pipelines.labelled_shards import LabelRun
from pipelines.llm_batch import BatchError, VllmAsker, VllmConfig, reply_row, request_row
from pipelines.llm_replies import REPLIES, drop_replies, read_replies, replies_path, stored_questions
from pipelines.negatives import NegativesJob, negatives_units
from pipelines.negatives_llm import LlmDraw
from pipelines.negatives_validators import ValidateConfig
from pipelines.runner import Engine, InlineEngine, Placement, RayConfig, RayEngine, Step
from pipelines.schemas import SCHEMA_VERSION
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import run_units
from tests.pipelines import test_negatives_llm as by_endpoint
from tests.pipelines.chat_server import chat_server
from tests.tiny.deaths import Deaths, Killed, files_of
from tests.tiny.labelled import COLOURS, THINGS, label, phrase, some_images

VLLM = VllmConfig(model="/models/chat", input_price=2.0, output_price=10.0)
ABOUT = {
    phrase(colour, thing, language): (colour, thing, language)
    for colour in COLOURS
    for thing in THINGS
    for language in ("en", "zh")
}
REGIONS = 8
"""With a caption, in a shard."""


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelRun:
    folder = tmp_path_factory.mktemp("labelled")
    return label(folder / "labels", folder / "shards", [some_images(shard, 4) for shard in range(3)])


def written(texts: Sequence[str]) -> str:
    return json.dumps({"negatives": [{"text": text, "type": "colour"} for text in texts]}, ensure_ascii=False)


@dataclass
class Moods:
    """What vLLM would put into a row, by the thing of its caption."""

    moods: dict[str, str] = field(default_factory=dict)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        about = ABOUT[row["text"]]
        assert row["messages"][1]["content"].count(row["text"])
        mood = self.moods.get(about[1], "good")
        if mood == "fails":
            return {"__inference_error__": "ValueError: the prompt is too long", "num_input_tokens": 0}
        text = written(by_endpoint.negatives_of(*about))
        if mood == "nonsense":
            text = '{"negatives": ['
        elif mood == "echoes":
            text = written([phrase(*about) or ""] * 10 + by_endpoint.negatives_of(*about)[:4])
        tokens = {"num_input_tokens": 100, "num_generated_tokens": 50}
        return {"generated_text": text, "__inference_error__": "", **tokens}


@dataclass
class Batch:
    """A batch stage as a function of rows. Remembers whom it was asked about."""

    draw: LlmDraw
    engine: Callable[[dict[str, Any]], dict[str, Any]] = field(default_factory=Moods)
    dies_after: int | None = None
    order: Callable[[list[dict[str, Any]]], list[dict[str, Any]]] = list
    asked: list[str] = field(default_factory=list)
    seen: Callable[[], None] = lambda: None

    def answers(self, engine: Engine, tasks: Sequence[pa.Table], read: Step) -> Iterator[pa.Table]:
        llm = self.draw.asked(NEGATIVES)
        assert self.draw.vllm is not None
        for row in self.order([row for table in engine.units(tasks, read) for row in table.to_pylist()]):
            if len(self.asked) == self.dies_after:
                raise Killed
            self.asked.append(row["key"])
            asked = row | request_row(row, self.draw.vllm, llm)
            yield pa.Table.from_pylist([reply_row(asked | self.engine(asked), llm)])
            self.seen()


NEGATIVES = NegativeConfig(max_iterations=2)


def make_draw(**fields: Any) -> LlmDraw:
    return LlmDraw(**{"vllm": VLLM, "max_unanswered_share": 1.0, **fields})


def make_job(labels: LabelRun, out: str | Path, draw: LlmDraw, asker: Any, **changes: Any) -> NegativesJob:
    job = NegativesJob(
        output=str(out),
        units=negatives_units(labels),
        manifest={"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "def"},
        labels=labels,
        negatives=NEGATIVES,
        validators=ValidateConfig().factory(labels.manifest["vocabulary"]),
        llm=draw,
        asker=asker,
    )
    return replace(job, **changes)


def run(labels: LabelRun, out: str | Path, batch: Batch, **changes: Any) -> dict[str, Any]:
    job = make_job(labels, out, batch.draw, batch, **changes)
    return run_units(job, InlineEngine(job.storage), run="test")


@pytest.fixture(scope="module")
def moody(labels: LabelRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """One run with every mood."""
    out = tmp_path_factory.mktemp("moody") / "out"
    batch = Batch(make_draw(), Moods({"key": "fails", "star": "nonsense", "ring": "echoes"}))
    return out, run(labels, out, batch)


def test_the_same_answers_make_the_same_negatives_as_those_of_an_endpoint(
    labels: LabelRun, moody: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    model = by_endpoint.Model(key="nonsense", star="nonsense", ring="echoes")
    with chat_server(model) as chat:
        by_endpoint.run(labels, tmp_path / "out", by_endpoint.draw(chat))
    ours, theirs = files_of(moody[0]), files_of(tmp_path / "out")
    assert ours.keys() == theirs.keys()
    for path in theirs:
        assert ours[path] == theirs[path], path


def test_the_summary_counts_questions_tokens_and_money(moody: tuple[Path, dict[str, Any]]) -> None:
    out, summary = moody
    rows = pd.read_parquet(out / "negatives")
    things = Counter(by_endpoint.thing_of(positive) for positive in rows.positive.dropna())
    llm = summary["llm"]
    assert llm["model"] == "/models/chat"
    assert llm["asked"] == 3 * REGIONS == sum(things.values())
    assert llm["unanswered"] == {"E_LLM": things["key"], "E_LLM_REPLY": things["star"]}
    assert llm["refused"] == {"L_NOT_JSON": things["star"]}
    answered = llm["asked"] - things["key"] - things["star"]
    counts = llm["vllm"]
    assert (counts["questions"], counts["answered"], counts["retries"]) == (llm["asked"], answered, 0)
    assert counts["failed"] == llm["unanswered"]
    paid = answered + things["star"]
    assert (counts["input_tokens"], counts["output_tokens"]) == (100 * paid, 50 * paid)
    assert llm["cost"] == pytest.approx(paid * (100 * 2 + 50 * 10) / 1e6)
    assert llm["outcomes"]["rule"] == things["key"] + things["star"]
    assert "endpoint" not in llm
    assert not (out / REPLIES).exists()
    assert not (out / "_parts").exists()


def test_too_many_questions_without_an_answer_are_over_the_limits(labels: LabelRun, tmp_path: Path) -> None:
    draw = make_draw(otherwise="none", max_unanswered_share=0.05)
    summary = run(labels, tmp_path / "out", Batch(draw, Moods({"key": "fails"})))
    (over,) = summary["over_limits"]
    assert "questions to /models/chat got no answer (E_LLM" in over
    rows = pd.read_parquet(tmp_path / "out" / "negatives")
    assert set(rows.reason.dropna()) == {"E_LLM", "R_NO_TEXT"}


def test_a_run_that_dies_asks_about_no_shard_twice_whose_replies_are_stored(
    labels: LabelRun, moody: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    moods = Moods({"key": "fails", "star": "nonsense", "ring": "echoes"})
    for answered in (REGIONS - 1, 2 * REGIONS + 3):
        out = tmp_path / f"died-{answered}"
        first, second = Batch(make_draw(), moods, dies_after=answered), Batch(make_draw(), moods)
        with pytest.raises(Killed):
            run(labels, out, first)
        assert len(list(out.glob(f"{REPLIES}/*"))) == answered // REGIONS
        (out / "_lock.json").unlink(missing_ok=True)
        run(labels, out, second)
        whole = answered // REGIONS * REGIONS
        assert set(first.asked[:whole]).isdisjoint(second.asked), answered
        assert len(second.asked) == 3 * REGIONS - whole, answered
        assert files_of(out) == files_of(moody[0]), answered


def test_killed_at_changes_of_the_disk_it_leaves_the_same_bytes(
    labels: LabelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaths = Deaths(monkeypatch)
    with deaths.die_at(-1):
        run(labels, tmp_path / "whole", Batch(make_draw()))
    assert deaths.count > 12
    for point, left in ((7, 3), (11, 2), (20, 0)):  # among the questions, among the replies, among the units
        out = tmp_path / f"killed-{point}"
        with pytest.raises(Killed), deaths.die_at(point):
            run(labels, out, Batch(make_draw()))
        (out / "_lock.json").unlink(missing_ok=True)
        batch = Batch(make_draw())
        assert run(labels, out, batch)["shards"] == {"committed": 3, "pending": 0, "failed": {}}, point
        assert files_of(out) == files_of(tmp_path / "whole"), point
        assert len(batch.asked) == left * REGIONS, point


@pytest.mark.parametrize(
    ("changes", "num_left"),
    [({"num_asked": 12}, 3), ({"model": "/models/other"}, 3), ({"replicas": 4, "batch_size": 8}, 2)],
)
def test_replies_to_other_questions_count_for_nothing(
    labels: LabelRun, tmp_path: Path, changes: dict[str, Any], num_left: int
) -> None:
    out = tmp_path / "out"
    with pytest.raises(Killed):
        run(labels, out, Batch(make_draw(), dies_after=REGIONS + 1))
    (out / "_lock.json").unlink(missing_ok=True)
    draw = make_draw(**changes) if "num_asked" in changes else make_draw(vllm=replace(VLLM, **changes))
    batch = Batch(draw, lambda row: {"__inference_error__": "no"})
    summary = run(labels, out, batch)  # the recipe of these jobs is empty: the manifest does not tell
    assert len(batch.asked) == num_left * REGIONS
    assert summary["llm"]["unanswered"] == {"E_LLM": num_left * REGIONS}


def test_the_driver_holds_some_replies_only_whatever_their_order(
    labels: LabelRun, moody: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.llm_asking, "MAX_HELD", 4)
    out = tmp_path / "out"
    most = []
    batch = Batch(
        make_draw(),
        Moods({"key": "fails", "star": "nonsense", "ring": "echoes"}),
        order=lambda rows: sorted(rows, key=lambda row: -row["place"]),  # the shards take turns
        seen=lambda: most.append(len(list(out.glob("_parts/*/replies-*")))),
    )
    run(labels, out, batch)
    assert max(most) >= 3
    assert files_of(out) == files_of(moody[0])


def test_a_block_that_comes_twice_counts_once(
    labels: LabelRun, moody: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    moods = Moods({"key": "fails", "star": "nonsense", "ring": "echoes"})
    batch = Batch(make_draw(), moods, order=lambda rows: rows[:12] + rows[5:])
    run(labels, tmp_path / "out", batch)
    assert len(batch.asked) == 3 * REGIONS + 7
    assert files_of(tmp_path / "out") == files_of(moody[0])


def test_a_stage_that_leaves_questions_out_is_a_fault(labels: LabelRun, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="not every question"):
        run(labels, tmp_path / "out", Batch(make_draw(), order=lambda rows: rows[:-1]))


def test_an_engine_that_answers_no_more_ends_the_run_and_the_next_one_asks_again(
    labels: LabelRun, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    calls = iter(range(1000))
    good = Moods()

    def breaks_down(row: dict[str, Any]) -> dict[str, Any]:
        return good(row) if next(calls) < REGIONS else {"__inference_error__": "RuntimeError: no GPU"}

    with pytest.raises(BatchError, match=r"10 questions in a row got no answer .* RuntimeError: no GPU"):
        run(labels, out, Batch(make_draw(stop_after=10), breaks_down))
    assert json.loads((out / "summary.json").read_text())["state"] == "error"
    assert len(list(out.glob(f"{REPLIES}/*"))) == 1  # the second shard was whole, and all in vain
    batch = Batch(make_draw())
    summary = run(labels, out, batch)
    assert len(batch.asked) == 2 * REGIONS
    assert summary["llm"]["unanswered"] == {}


def test_a_committed_shard_is_not_asked_about(tmp_path: Path) -> None:
    shards = [some_images(0, 4), some_images(1, 4)]
    run(label(tmp_path / "labels", tmp_path / "shards", shards), tmp_path / "out", Batch(make_draw()))
    more = label(tmp_path / "labels", tmp_path / "shards", [*shards, some_images(2, 4)])
    batch = Batch(make_draw())
    run(more, tmp_path / "out", batch)
    assert len(batch.asked) == REGIONS


def test_a_changed_table_fails_its_shard_alone(tmp_path: Path) -> None:
    labels = label(tmp_path / "labels", tmp_path / "shards", [some_images(0, 4), some_images(1, 4)])
    with pytest.raises(Killed):
        run(labels, tmp_path / "out", Batch(make_draw(), dies_after=0))
    (tmp_path / "out" / "_lock.json").unlink(missing_ok=True)
    path = tmp_path / "labels" / labels.commits[0].tables["instances"]["published"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    batch = Batch(make_draw())
    summary = run(labels, tmp_path / "out", batch)
    (message,) = summary["shards"]["failed"].values()
    assert message.startswith("E_LABELS_CHANGED: ")
    assert len(batch.asked) == REGIONS
    path.write_bytes(whole)
    again = Batch(make_draw())
    assert run(labels, tmp_path / "out", again)["shards"]["committed"] == 2
    assert len(again.asked) == REGIONS


def test_a_shard_without_its_replies_says_so(
    labels: LabelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipelines.negatives.ask_ahead", lambda *args, **more: None)
        summary = run(labels, tmp_path / "out", Batch(make_draw()))
    for message in summary["shards"]["failed"].values():
        assert message.startswith("E_LLM_REPLIES: ")
        assert "run the recipe again" in message
    assert run(labels, tmp_path / "out", Batch(make_draw()))["shards"]["committed"] == 3


def test_replies_lie_in_any_storage(labels: LabelRun, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(labels, tmp_path / "out", Batch(make_draw(), dies_after=REGIONS))
    storage = open_storage(str(tmp_path / "out"))
    (info,) = storage.list(REPLIES)
    shard = Path(info.path).stem
    assert replies_path(shard) == info.path
    table = read_replies(storage, shard)
    assert table["place"].to_pylist() == list(range(REGIONS))
    assert len(stored_questions(storage, shard) or "") == 32
    storage.put(info.path, b"not ours")
    assert stored_questions(storage, shard) is None
    drop_replies(storage)
    assert stored_questions(storage, shard) is None


def test_the_inline_engine_runs_no_batch_stage(labels: LabelRun, tmp_path: Path) -> None:
    asker = VllmAsker(config=VLLM, llm=make_draw().asked(NEGATIVES))
    job = make_job(labels, tmp_path / "out", make_draw(), asker)
    with pytest.raises(ConfigError, match="--engine ray"):
        run_units(job, InlineEngine(job.storage), run="test")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"vllm": None}, "neither endpoint nor vllm is given"),
        ({"endpoint": by_endpoint.LlmEndpoint(url="http://h/v1", model="m")}, "both endpoint and vllm are"),
        ({"vllm": replace(VLLM, max_reply_tokens=200)}, r"llm.vllm.max_reply_tokens .* answers would be cut"),
    ],
)
def test_what_is_no_config(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        make_draw(**fields)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (
            'ray::Map(engine)()\n  File "a.py", line 44, in engine\n    raise RuntimeError("x")\n'
            "RuntimeError: CUDA error: out of memory\n\nThe above exception was the direct cause of the following"
            " exception:\n\nray::Map()\n"
            "ray.exceptions.UserCodeException: UDF failed to process a data block.\nTo change retry attempts, ...",
            "RuntimeError: CUDA error: out of memory",
        ),
        ("Sorry.\nThe actor died.", "The actor died"),
    ],
)
def test_what_ended_a_stage_is_told_in_a_line(
    labels: LabelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, cause: str
) -> None:
    from ray.exceptions import RayError

    def dies(*args: Any) -> Iterator[pa.Table]:
        raise RayError(text)

    engine = RayEngine(RayConfig(), StorageOptions())
    monkeypatch.setattr(engine, "units_through", dies)
    asker = VllmAsker(
        config=VLLM, llm=make_draw().asked(NEGATIVES), build=lambda *args, **more: lambda data: data
    )
    with pytest.raises(BatchError) as caught:
        list(asker.answers(engine, [], Step(stages=(), placement=Placement())))
    assert f"/models/chat ended: {cause}. What it answered of whole shards is stored" in str(caught.value)
