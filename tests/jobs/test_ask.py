"""An endpoint asked about regions, through the label job: it answers, stalls, is busy, talks nonsense, dies."""

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from PIL import Image

from ovsops.backbones.untrained_fgclip2 import write_untrained_fgclip2
from ovsops.backbones.untrained_llmdet import write_untrained_llmdet
from tests.pipelines.chat_server import (
    Act,
    ChatServer,
    Handler,
    chat_server,
    closes,
    completion,
    sends,
    stalls,
)

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]

KEY = "sk-very-secret-0123456789"
USAGE = {"prompt_tokens": 1000, "completion_tokens": 10}


@pytest.fixture(autouse=True)
def key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_VLM_KEY", KEY)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("weights")
    write_untrained_llmdet(folder / "llmdet")
    write_untrained_fgclip2(folder / "fgclip2")
    return {name: str(folder / name) for name in ("llmdet", "fgclip2")}


@pytest.fixture
def boxes(weights: dict[str, str]) -> dict[str, Any]:
    """A recipe's fields: three boxes an image, no segmenter."""
    reading = {"short_side": 64, "max_long_side": 96, "min_score": 0.0, "max_detections": 3}
    return {
        "segmenter": None,
        "detector": {"kind": "llmdet", "llmdet": {"source": weights["llmdet"]}, "reading": reading},
        "limits": {"max_failed_share": 0.5, "max_unanswered_share": 1.0},
    }


def endpoint(chat: ChatServer, **fields: Any) -> dict[str, Any]:
    quick = {"first_wait_s": 0.01, "longest_wait_s": 0.05, "max_attempts": 2, "concurrency": 1}
    base = {"url": chat.url, "model": "tiny", "key_from_env": "MY_VLM_KEY", "input_price": 2.0}
    return base | quick | fields


def answers(handler: Handler) -> None:
    """As asked: a caption, or yes."""
    schema = handler.body["response_format"]["json_schema"]["name"]
    caption = {"en": {"short": "a small red thing", "long": "A small red thing with a shadow."}}
    said = caption if schema == "region_caption" else {"answer": "yes", "reason": f"it is, {KEY}"}
    handler.send(200, completion(json.dumps(said), USAGE))


def after(number: int, then: Act) -> list[Act]:
    """That many answers, then something else."""
    return [answers] * number + [then]


@pytest.fixture
def run(write_recipe: Write, ovsops: Call, tmp_path: Path) -> Callable[..., tuple[Any, Any, Any]]:
    """Label with a recipe; images, instances, summary. Looks for the key in everything that was written or said."""

    def label(**fields: Any) -> tuple[Any, Any, Any]:
        code, out, err = ovsops("run", write_recipe(**fields), "--engine", "inline")
        assert code == 0, out + err
        secret = KEY.encode()
        assert KEY not in out + err
        assert not [
            path for path in (tmp_path / "out").rglob("*") if path.is_file() and secret in path.read_bytes()
        ]
        images, instances = (pd.read_parquet(tmp_path / "out" / kind) for kind in ("images", "instances"))
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert (images.status == "labelled").all()
        assert summary["images"]["labelled"] == len(images) == 6
        asked = summary["this_run"]["endpoint"]
        assert asked["questions"] == asked["answered"] + sum(asked["failed"].values())
        return images, instances, summary

    return label


def notes(images: pd.DataFrame, code: str) -> int:
    """What the notes of all images count of a code."""
    found = [note.split(":") for each in images.notes for note in each]
    return sum(int(count[0]) for name, *count in found if name == code and count)


def test_answers_become_captions_verdicts_and_a_bill(run: Any, boxes: dict[str, Any], tmp_path: Path) -> None:
    with chat_server(answers) as chat:
        ask = {"endpoint": endpoint(chat), "verify": True, "picture": {"view": "box", "min_side": 1}}
        images, instances, summary = run(**boxes, ask=ask)
    asked = summary["this_run"]["endpoint"]
    assert len(instances)
    assert set(instances.caption_short) == {"a small red thing"}
    assert set(instances.caption_source) == set(instances.verdict_source) == {"vlm:tiny"}
    assert set(instances.verdict) == {"yes"}
    assert not instances.reason_codes.map(lambda codes: "R_NO_ANSWER" in codes).any()
    assert (asked["questions"], asked["answered"]) == (2 * len(instances), 2 * len(instances))
    assert asked["input_tokens"] == 1000 * len(chat.bodies) == 2000 * len(instances)
    assert asked["cost"] == pytest.approx(0.002 * asked["questions"])
    assert {header["Authorization"] for header in chat.headers} == {f"Bearer {KEY}"}
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["settings"]["ask"]["endpoint"]["key_from_env"] == "MY_VLM_KEY"
    assert manifest["recipe"]["ask"]["endpoint"]["model"] == "tiny"
    assert "url" not in manifest["recipe"]["ask"]["endpoint"]
    sizes = set()
    for body in chat.bodies:
        url = body["messages"][1]["content"][0]["image_url"]["url"]
        sizes.add(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).size)
    assert sizes == set(zip(images.width, images.height, strict=True)), "the whole picture, as it is labelled"


@pytest.mark.parametrize(
    ("then", "code"),
    [
        (sends(429, b"slow down", Retry_After="0"), "E_ENDPOINT_BUSY"),
        (stalls, "E_ENDPOINT_TIMEOUT"),
        (lambda handler: handler.send(200, completion("a fine ball", USAGE)), "E_ENDPOINT_REPLY"),
        (closes, "E_ENDPOINT_UNREACHABLE"),
    ],
    ids=["429", "stalls", "nonsense", "dies"],
)
def test_what_got_no_answer_keeps_what_it_had(run: Any, boxes: dict[str, Any], then: Act, code: str) -> None:
    with chat_server(*after(4, then)) as chat:
        patience = {"read_timeout_s": 2.0, "max_attempts": 1, "give_up_after": 2}
        ask = {"endpoint": endpoint(chat, **patience), "captions": False, "verify": True}
        images, instances, summary = run(**boxes, ask=ask)
    asked = summary["this_run"]["endpoint"]
    unanswered = instances.reason_codes.map(lambda codes: "R_NO_ANSWER" in codes)
    assert asked["answered"] == (~unanswered).sum() == 4
    assert unanswered.sum() == len(instances) - 4 > 0
    assert instances.verdict[unanswered].isna().all()
    assert set(instances.verdict[~unanswered]) == {"yes"}
    assert asked["failed"][code] > 0
    assert {name: notes(images, name) for name in asked["failed"]} == asked["failed"]
    assert (
        summary["notes"][code] == images.notes.map(lambda all_: any(n.startswith(code) for n in all_)).sum()
    )


def test_the_largest_come_first_and_the_rest_is_counted(run: Any, boxes: dict[str, Any]) -> None:
    with chat_server(answers) as chat:
        images, instances, _ = run(**boxes, ask={"endpoint": endpoint(chat), "max_regions": 1})
    assert (instances.caption_source.notna()).sum() == len(chat.bodies) == 6
    for _, of_image in instances.groupby("image_uid"):
        assert of_image.area[of_image.caption_source.notna()].item() == of_image.area.max()
    assert notes(images, "N_NOT_ASKED") == len(instances) - 6


def test_a_verdict_of_no_sends_a_region_to_a_person(run: Any, boxes: dict[str, Any]) -> None:
    def says_no(handler: Handler) -> None:
        handler.send(200, completion('{"answer": "no"}', USAGE))

    with chat_server(says_no) as chat:
        ask = {"endpoint": endpoint(chat), "captions": False, "verify": True, "which": "undecided"}
        _, instances, _ = run(**boxes, ask=ask)
    assert set(instances.verdict) == {"no"}
    assert set(instances.decision) == {"review"}


def test_captions_are_checked_by_who_sees_the_region(
    run: Any, boxes: dict[str, Any], weights: dict[str, str], tmp_path: Path
) -> None:
    ground = {"fgclip2": {"source": weights["fgclip2"]}, "max_patches": 16, "margin": 0.0, "min_cosine": -1.0}
    with chat_server(answers) as chat:
        images, instances, _ = run(**boxes, ask={"endpoint": endpoint(chat), "ground": ground})
    none_left = instances.caption_source == "detector"
    assert set(instances.caption_source) <= {"vlm:tiny+grounded", "detector"}
    assert not none_left.all(), "a clause without contrasts need only be near"
    assert (instances.caption_short[none_left] == "red thing").all()
    assert notes(images, "N_UNSUPPORTED") == none_left.sum()
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert len(manifest["recipe"]["ask"]["ground"]["fgclip2"]["sha256"]) == 64
    assert manifest["checkpoints"]["ask.fgclip2"].startswith("local sha256:")


@pytest.mark.parametrize("value", [None, "two words"])
def test_a_key_that_is_missing_ends_the_start_before_any_image(
    write_recipe: Write,
    ovsops: Call,
    boxes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    value: str | None,
) -> None:
    monkeypatch.delenv("MY_VLM_KEY") if value is None else monkeypatch.setenv("MY_VLM_KEY", value)
    with chat_server(answers) as chat:
        recipe = write_recipe(**boxes, ask={"endpoint": endpoint(chat)})
        for verb in (["run", recipe, "--engine", "inline"], ["plan", recipe], ["doctor", recipe]):
            code, out, err = ovsops(*verb)
            assert code == 4
            assert "MY_VLM_KEY" in out + err
            assert "two words" not in out + err
    assert not chat.bodies
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]


def test_an_endpoint_that_is_gone_ends_the_run_and_the_next_start_goes_on(
    write_recipe: Write, ovsops: Call, boxes: dict[str, Any], tmp_path: Path
) -> None:
    with chat_server(*after(9, sends(503))) as chat:
        ask = {"endpoint": endpoint(chat, max_attempts=1), "stop_after": 5}
        recipe = write_recipe(**boxes, ask=ask)
        code, out, err = ovsops("run", recipe, "--engine", "inline")
        assert code == 1
        assert "5 questions in a row got no answer" in out + err
    committed = sorted((tmp_path / "out" / "commits").iterdir())
    assert len(committed) == 1
    stamp = committed[0].stat().st_mtime_ns
    with chat_server(answers) as chat:
        code, out, err = ovsops("run", recipe, "--engine", "inline", "--set", f"ask.endpoint.url={chat.url}")
    assert code == 0, out + err
    assert committed[0].stat().st_mtime_ns == stamp
    instances = pd.read_parquet(tmp_path / "out" / "instances")
    assert set(instances.caption_source) == {"vlm:tiny"}
    assert len(chat.bodies) < len(instances), "a committed shard is not asked about again"


def test_retry_by_code_asks_what_got_no_answer_again(
    write_recipe: Write, ovsops: Call, boxes: dict[str, Any], tmp_path: Path
) -> None:
    acts: list[Act] = [answers] * 4 + [sends(503)]

    def now(handler: Handler) -> None:
        act = acts.pop(0) if len(acts) > 1 else acts[0]
        act(handler)

    with chat_server(now) as chat:
        recipe = write_recipe(**boxes, ask={"endpoint": endpoint(chat, max_attempts=1)})
        assert ovsops("run", recipe, "--engine", "inline")[0] == 0
        acts[:] = [answers]
        before, asked = tables(tmp_path / "out"), len(chat.bodies)
        assert ovsops("retry", tmp_path / "out", "--engine", "inline")[0] == 0
        assert (tables(tmp_path / "out"), len(chat.bodies)) == (before, asked), "no image failed"
        code, out, err = ovsops("retry", tmp_path / "out", "--engine", "inline", "--code", "E_ENDPOINT_BUSY")
        assert code == 0, out + err
    images, instances = (pd.read_parquet(tmp_path / "out" / kind) for kind in ("images", "instances"))
    assert set(instances.caption_source) == {"vlm:tiny"}
    assert not notes(images, "E_ENDPOINT_BUSY")
    assert asked < len(chat.bodies) <= asked + len(instances)


def test_too_many_questions_without_an_answer_are_over_the_limits(
    write_recipe: Write, ovsops: Call, boxes: dict[str, Any]
) -> None:
    with chat_server(sends(400, b"no such model")) as chat:
        recipe = write_recipe(**{**boxes, "limits": {}}, ask={"endpoint": endpoint(chat)})
        code, out, err = ovsops("run", recipe, "--engine", "inline")
    assert code == 3
    assert "limits.max_unanswered_share is 5.00%" in out + err


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        ({"captions": False}, "neither captions nor verify"),
        ({"max_regions": 0}, "ask.max_regions is 0"),
        ({"which": "some"}, "ask.which"),
        ({"captions": False, "verify": True, "ground": {"fgclip2": {"source": "x"}}}, "none are asked for"),
        ({"ground": {"fgclip2": {"source": "x"}, "margin": 3.0}}, "margin lies in"),
        ({"endpoint": {"url": "http://me:hunter22@127.0.0.1/v1", "model": "tiny"}}, "holds a credential"),
        ({"endpoint": {"url": "http://vlm.example/v1", "model": "tiny", "key_from_env": "K"}}, "unencrypted"),
        (
            {"endpoint": {"url": "http://127.0.0.1/v1", "model": "tiny", "api_key": "x"}},
            "looks like a secret",
        ),
    ],
)
def test_what_cannot_be_asked_is_refused(
    write_recipe: Write, ovsops: Call, ask: dict[str, Any], message: str
) -> None:
    plain = {"endpoint": {"url": "http://127.0.0.1:9/v1", "model": "tiny"}}
    code, out, err = ovsops("plan", write_recipe(ask=plain | ask))
    assert code == 2
    assert message in out + err
    assert "hunter22" not in out + err


@pytest.mark.ray
def test_ray_asks_the_same_and_shows_no_key(
    write_recipe: Write, ovsops: Call, boxes: dict[str, Any], tmp_path: Path
) -> None:
    with chat_server(answers) as chat:
        ask = {"endpoint": endpoint(chat), "verify": True}
        recipe = write_recipe(**boxes, ask=ask, ask_on={"actors": 1, "num_cpus": 0.5})
        assert ovsops("run", recipe, "--engine", "inline")[0] == 0
        inline, asked = tables(tmp_path / "out"), len(chat.bodies)
        command = [
            sys.executable,
            "-m",
            "jobs.cli",
            "run",
            str(recipe),
            "--set",
            f"output={tmp_path / 'ray'}",
        ]
        done = subprocess.run(
            [*command, "--set", "ray.num_cpus=3"], capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
    assert len(chat.bodies) == 2 * asked
    assert tables(tmp_path / "ray") == inline
    written = [path.read_bytes() for path in (tmp_path / "ray").rglob("*") if path.is_file()]
    assert not any(KEY.encode() in text for text in (*written, done.stdout, done.stderr))


def tables(out: Path) -> dict[str, bytes]:
    """What a run wrote for others to read."""
    return {
        f"{kind}/{path.name}": path.read_bytes()
        for kind in ("images", "instances")
        for path in (out / kind).iterdir()
    }
