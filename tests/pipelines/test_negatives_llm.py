"""Negatives by a language model in the negatives job, by a server that answers, stalls, is busy and talks nonsense."""

import json
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ovsops.errors import ConfigError
from ovsops.negatives.candidates import CandidateNegatives, Source
from ovsops.negatives.check import set_faults
from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.sampler import Negatives, fit_sampler
from pipelines.labelled_shards import LabelRun
from pipelines.negatives import NegativesJob, negatives_units
from pipelines.negatives_llm import LlmDraw, LlmEndpoint, candidates_of, choose_written
from pipelines.negatives_validators import ValidateConfig
from pipelines.runner import InlineEngine
from pipelines.schemas import SCHEMA_VERSION, WRITTEN_NEGATIVES
from pipelines.units import run_units
from tests.pipelines.chat_server import ChatServer, Handler, chat_server, completion, sends, stalls
from tests.tiny.deaths import Deaths, Killed, files_of
from tests.tiny.labelled import COLOURS, THINGS, label, phrase, some_images

USAGE = {"prompt_tokens": 100, "completion_tokens": 50}
ENGLISH = (
    "red green blue black white yellow orange purple pink brown grey turquoise maroon beige teal".split()
)
REGIONS = 16
"""With a caption."""
CHINESE = "红 绿 蓝 黑 白 黄 橙 紫 粉 棕 灰 银 金 青 米".split()


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> LabelRun:
    folder = tmp_path_factory.mktemp("labelled")
    return label(folder / "labels", folder / "shards", [some_images(shard, 4) for shard in range(2)])


CAPTIONS = {
    json.dumps(phrase(colour, thing, language), ensure_ascii=False): (colour, thing, language)
    for colour in COLOURS
    for thing in THINGS
    for language in ("en", "zh")
}


def asked_about(body: dict[str, Any]) -> tuple[str, str, str]:
    """Colour, thing and language of the caption in a question."""
    text = body["messages"][1]["content"][0]["text"]  # what is asked again begins alike
    (found,) = [pair for caption, pair in CAPTIONS.items() if caption in text]
    return found


def negatives_of(colour: str, thing: str, language: str) -> list[str]:
    """Fourteen: the same thing in other colours."""
    if language == "zh":
        own = COLOURS[colour][0]
        return [f"{other}色的{THINGS[thing]}" for other in CHINESE if other != own][:14]
    return [f"{'an' if other[0] == 'o' else 'a'} {other} {thing}" for other in ENGLISH if other != colour][
        :14
    ]


def reply(texts: Sequence[str]) -> bytes:
    entries = [{"text": text, "type": "colour"} for text in texts]
    return completion(json.dumps({"negatives": entries}, ensure_ascii=False), USAGE)


class Model:
    """Answers as its list of moods says, by the thing of the caption."""

    def __init__(self, **moods: str) -> None:
        self.moods = moods
        self.asked: list[tuple[str, str, str]] = []
        self.lock = threading.Lock()

    def __call__(self, handler: Handler) -> None:
        about = asked_about(handler.body)
        with self.lock:
            is_first = about not in self.asked
            self.asked.append(about)
        mood = self.moods.get(about[1], "good")
        if mood == "stalls":
            stalls(handler)
        elif mood == "nonsense":
            handler.send(200, completion('{"negatives": [', USAGE))
        elif mood == "busy" and is_first:
            handler.send(429, b"", Retry_After="0")
        elif mood == "echoes":  # the caption itself ten times, and four of use
            handler.send(200, reply([phrase(*about) or ""] * 10 + negatives_of(*about)[:4]))
        else:
            handler.send(200, reply(negatives_of(*about)))


def draw(chat: ChatServer, **fields: Any) -> LlmDraw:
    quick = {"first_wait_s": 0.01, "longest_wait_s": 0.05, "read_timeout_s": 0.5, "max_attempts": 2}
    endpoint = {"url": chat.url, "model": "tiny", "input_price": 2.0, "output_price": 10.0} | quick
    given = fields.pop("endpoint", {})
    return LlmDraw(endpoint=LlmEndpoint(**endpoint | given), **{"max_unanswered_share": 1.0} | fields)


def run(labels: LabelRun, out: Path, llm: LlmDraw | None) -> dict[str, Any]:
    job = NegativesJob(
        output=str(out),
        units=negatives_units(labels),
        manifest={"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "def"},
        labels=labels,
        negatives=NegativeConfig(max_iterations=2),
        validators=ValidateConfig().factory(labels.manifest["vocabulary"]),
        llm=llm,
    )
    return run_units(job, InlineEngine(job.storage), run="test")


def table(out: Path) -> pd.DataFrame:
    return pd.read_parquet(out / "negatives")


def thing_of(positive: str) -> str:
    return next(thing for thing, chinese in THINGS.items() if thing in positive or chinese in positive)


@pytest.fixture(scope="module")
def moody(labels: LabelRun, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Any]:
    """One run over a server with every mood."""
    out = tmp_path_factory.mktemp("moody") / "out"
    model = Model(key="stalls", star="nonsense", box="busy", ring="echoes")
    with chat_server(model) as chat:
        summary = run(labels, out, draw(chat))
    return out, model, summary


def test_every_region_has_ten_and_each_says_who_wrote_it(moody: tuple[Path, Model, Any]) -> None:
    out, _, _ = moody
    rows = table(out)
    assert list(rows.columns) == WRITTEN_NEGATIVES.names
    made = rows[rows.negatives.notna()]
    assert len(made) == REGIONS
    assert rows[rows.negatives.isna()].reason.tolist() == ["R_NO_TEXT"] * 2
    writers = {}
    for row in made.itertuples():
        assert not set_faults(row.positive, list(row.negatives))
        assert len(row.sources) == len(row.negatives) == 10
        writers.setdefault(thing_of(row.positive), set()).add(tuple(row.sources))
    model, rule = ("llm",) * 10, ("rule",) * 10
    assert writers["ball"] == writers["fish"] == writers["box"] == {model}
    assert writers["key"] == writers["star"] == {rule}
    assert len(writers["ring"]) > 1  # of its four some are too near to the true colour
    for sources in writers["ring"]:
        count = sources.count("llm")
        assert 1 <= count <= 4
        assert sources == ("llm",) * count + ("rule",) * (10 - count)


def test_the_summary_counts_questions_tokens_and_money(moody: tuple[Path, Model, Any]) -> None:
    out, model, summary = moody
    rows = table(out)
    things = Counter(thing_of(positive) for positive in rows.positive.dropna())
    llm = summary["llm"]
    assert llm["asked"] == REGIONS == sum(things.values())
    assert llm["unanswered"] == {"E_ENDPOINT_REPLY": things["star"], "E_ENDPOINT_TIMEOUT": things["key"]}
    assert llm["outcomes"] == {
        "both": things["ring"],
        "model": things["ball"] + things["fish"] + things["box"],
        "rule": things["key"] + things["star"],
    }
    dropped = llm["dropped"]
    assert dropped.keys() == {"F_POSITIVE", "F_DUPLICATE", "V_SYNONYM"}  # red beside pink excludes too little
    assert (dropped["F_POSITIVE"], dropped["F_DUPLICATE"]) == (things["ring"], 9 * things["ring"])
    assert summary["candidates_dropped"]["F_POSITIVE"] == dropped["F_POSITIVE"]
    assert llm["refused"] == {"L_NOT_JSON": 2 * things["star"]}  # asked twice each
    assert llm["endpoint"]["requests"] == len(model.asked)
    paid = llm["endpoint"]["answered"] + 2 * things["star"]
    assert (llm["endpoint"]["input_tokens"], llm["endpoint"]["output_tokens"]) == (100 * paid, 50 * paid)
    assert llm["cost"] == pytest.approx(paid * (100 * 2 + 50 * 10) / 1e6)
    assert summary["sources"]["llm"] + summary["sources"]["rule"] == 10 * REGIONS
    assert summary["regions"]["invariant_holds"]
    assert summary["over_limits"] == []
    assert json.loads((out / "summary.json").read_text())["llm"] == llm


def test_rules_alone_have_no_column_of_writers(labels: LabelRun, tmp_path: Path) -> None:
    summary = run(labels, tmp_path / "out", None)
    assert "sources" not in table(tmp_path / "out").columns
    assert "llm" not in summary


def test_a_killed_run_asks_about_no_committed_shard_again(
    labels: LabelRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(star="nonsense", ring="echoes")
    deaths = Deaths(monkeypatch)
    with chat_server(model) as chat:
        with deaths.die_at(-1):
            run(labels, tmp_path / "whole", draw(chat))
        again = []
        for point in (6, 12, 2 * deaths.count - 4):
            out = tmp_path / f"killed-{point}"
            with pytest.raises(Killed), deaths.die_at(point):
                run(labels, out, draw(chat))
            done = len(list((out / "commits").glob("*.json"))) if (out / "commits").exists() else 0
            (out / "_lock.json").unlink(missing_ok=True)
            model.asked.clear()
            summary = run(labels, out, draw(chat))
            assert summary["shards"] == {"committed": 2, "pending": 0, "failed": {}}, point
            assert files_of(out) == files_of(tmp_path / "whole"), point
            again.append((done, len(set(model.asked))))
    assert {done for done, _ in again} == {0, 1, 2}
    by_done = dict(again)
    assert by_done[2] == 0
    assert 0 < by_done[1] < by_done[0]


def test_a_share_is_asked_about_and_some_of_ten_are_the_models(labels: LabelRun, tmp_path: Path) -> None:
    with chat_server(Model()) as chat:
        summary = run(labels, tmp_path / "out", draw(chat, share=0.5, most=3))
    assert 0 < summary["llm"]["asked"] < REGIONS
    assert summary["llm"]["outcomes"] == {"both": summary["llm"]["asked"]}
    assert summary["sources"]["llm"] == 3 * summary["llm"]["asked"]
    assert summary["regions"]["with_negatives"] == REGIONS


def test_what_both_wrote_is_shown_once_and_can_be_either_ones() -> None:
    """A model that writes all that the rules write leaves them enough where it may have one of ten."""
    answer = Negatives(
        positive="a red ball",
        negatives=tuple(negatives_of("red", "ball", "en")[:12]),
        types=("colour",) * 12,
        language="en",
    )
    source: Source = "llm"
    written = CandidateNegatives(
        key="r",
        positive="a red ball",
        language="en",
        texts=(*reversed(answer.negatives[:10]), "a red box"),
        types=("colour",) * 10 + ("object",),
        sources=(source,) * 11,
    )
    with chat_server(Model()) as chat:
        llm = draw(chat, most=2)
    shown = candidates_of("r", answer, written, llm)
    assert shown is not None
    assert len(shown.texts) == len(set(shown.texts)) == 13
    ten, reason = choose_written(shown, answer, llm, fit_sampler(CorpusSample()))
    assert ten is not None
    assert reason == ""
    assert ten.sources == ("llm",) * 2 + ("rule",) * 8
    assert ten.texts[:2] == written.texts[:2]
    assert ten.texts[2:] == answer.negatives[:8]
    alone = replace(llm, most=10, otherwise="none")
    ten, reason = choose_written(written, answer, alone, fit_sampler(CorpusSample()))
    assert ten is not None
    assert ten.sources == ("llm",) * 10
    assert choose_written(written.only(range(9)), answer, alone, fit_sampler(CorpusSample())) == (
        None,
        "V_TOO_FEW",
    )


def test_without_rules_a_silent_model_is_a_reason(labels: LabelRun, tmp_path: Path) -> None:
    with chat_server(Model(key="nonsense", ring="echoes")) as chat:
        llm = draw(chat, otherwise="none", max_unanswered_share=0.05)
        summary = run(labels, tmp_path / "out", llm)
    rows = table(tmp_path / "out")
    things = rows.positive.dropna().map(thing_of)
    assert set(rows.reason[things.index[things == "key"]]) == {"E_ENDPOINT_REPLY"}
    assert set(rows.reason[things.index[things == "ring"]]) == {"V_TOO_FEW"}
    assert summary["llm"]["outcomes"]["none"] == summary["regions"]["left_out"] - 2
    assert summary["sources"].keys() == {"llm"}
    (over,) = summary["over_limits"]
    assert "questions to tiny got no answer (E_ENDPOINT_REPLY" in over


@pytest.mark.parametrize(
    ("status", "stop_after", "code", "said"),
    [(401, 64, "E_ENDPOINT_DENIED", "it wants a key"), (404, 3, "E_ENDPOINT_STATUS", "3 questions in a row")],
)
def test_an_endpoint_that_is_no_use_fails_the_shard_and_the_next_run_mends_it(
    labels: LabelRun, tmp_path: Path, status: int, stop_after: int, code: str, said: str
) -> None:
    with chat_server(sends(status)) as chat:
        summary = run(labels, tmp_path / "out", draw(chat, stop_after=stop_after))
    assert summary["shards"]["committed"] == 0
    for message in summary["shards"]["failed"].values():
        assert message.startswith(f"{code}: ")
        assert said in message
        assert "in the summary" in message
    assert not list((tmp_path / "out").glob("negatives/*"))
    with chat_server(Model()) as chat:
        assert run(labels, tmp_path / "out", draw(chat))["shards"]["committed"] == 2


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"share": 0.0}, "nothing would be asked"),
        ({"share": 1.5}, "share is 1.5"),
        ({"most": 11}, "most is 11"),
        ({"most": 5, "otherwise": "none"}, "nobody writes the other 5"),
        ({"num_asked": 9}, "num_asked is 9"),
        ({"endpoint": {"max_reply_tokens": 200}}, "answers would be cut"),
        ({"stop_after": 0}, "stop_after is 0"),
    ],
)
def test_what_is_no_config(fields: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        draw(ChatServer(url="http://127.0.0.1:1/v1", script=[]), **fields)
