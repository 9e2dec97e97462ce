"""`--log-format json`: every line on standard error is one JSON object, whatever is told."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import jobs.label
from jobs import progress
from jobs.common_options import take_common_options
from jobs.logs import JsonFormatter, configure_logging, facts, format_ray_records, is_json
from tests.jobs.test_nightly import Nights
from tests.tiny.labelled import label, some_images
from tests.tiny.segmenters import ColourFactory

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]
JSON = ("--log-format", "json")
INLINE = ("--engine", "inline")


@pytest.fixture(autouse=True)
def colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quick labels; and progress lines at once."""
    factory = ColourFactory()
    monkeypatch.setattr(jobs.label.RecipeAnnotator, "build", lambda self: factory.build())
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.01)


def lines(err: str) -> list[dict[str, Any]]:
    """The objects; a line that is none fails, and so does a number that JSON does not have."""

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    found = [json.loads(line, parse_constant=no_constant) for line in err.splitlines()]
    assert all({"time", "level", "logger", "message"} <= each.keys() for each in found)
    return found


def events(err: str) -> list[str]:
    return [each.get("event", "") for each in lines(err)]


def test_a_label_run_and_its_retry(write_recipe: Write, ovsops: Call, tmp_path: Path) -> None:
    recipe = write_recipe(broken_every=3)
    code, out, err = ovsops("run", recipe, *INLINE, *JSON)
    assert (code, out) == (0, "")
    told = lines(err)
    assert {"progress", "summary", "next"} <= set(events(err))
    (end,) = [each for each in told if each.get("event") == "summary"]
    assert end["summary"]["failures_by_code"] == {"E_TRUNCATED": 2}
    one = next(each for each in told if each.get("event") == "progress")
    assert {"images", "shards", "codes", "stages", "devices", "eta_seconds"} <= one.keys()
    code, out, err = ovsops("retry", tmp_path / "out", *INLINE, *JSON)
    assert (code, out) == (0, "")
    assert "summary" in events(err)
    code, _, err = ovsops("export", tmp_path / "out", "--out", tmp_path / "yolo", "--to", "yolo-seg", *JSON)
    assert code in (0, 3)
    lines(err)


def test_negatives_sets_and_a_night(tmp_path: Path, checkpoints: Path, ovsops: Call) -> None:
    label(tmp_path / "labels", tmp_path / "shards", [some_images(0)])
    common = {"labels": str(tmp_path / "labels")}
    negatives = {"job": "negatives", "output": str(tmp_path / "n"), "negatives": {"max_iterations": 2}}
    sets = {"job": "dataset", "output": str(tmp_path / "s"), "set": {"formats": ["finehard-json"]}}
    for name, plain in {"negatives": negatives, "set": sets}.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(common | plain))
        code, out, err = ovsops("run", path, *INLINE, *JSON)
        assert (code, out) == (0, "")
        assert {"summary", "next"} <= set(events(err))
    nights = Nights(tmp_path, checkpoints, ovsops)
    code, out, err = ovsops("nightly", nights.recipe(canary=None), "--night", "one", *INLINE, *JSON)
    assert code == 2, "no shard is there yet"
    assert events(err)[-1] == "error"
    assert json.loads(out)["exit_code"] == 2


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["frobnicate"], 2),
        (["run"], 2),
        (["run", "no.yaml"], 2),
        (["status", "nowhere"], 2),
        (["run", "r.yaml", "--set", "a\nb"], 2),
        (["run", "r.yaml", "--metrics-file", "/nowhere/m.prom"], 2),
    ],
    ids=["no verb", "no recipe", "no file", "no run", "two lines", "no folder"],
)
@pytest.mark.parametrize("debug", [[], ["--debug"]], ids=["", "debug"])
def test_errors(ovsops: Call, words: list[str], code: int, debug: list[str]) -> None:
    found, _, err = ovsops(*words, *JSON, *debug)
    last = lines(err)[-1]
    assert (last["event"], last["exit_code"], last["level"]) == ("error", found, "error")
    assert found in (code, 2)


def test_an_interruption_and_a_fault_of_ours(
    write_recipe: Write, ovsops: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    for problem, what in ((KeyboardInterrupt(), "interrupted"), (AssertionError("x\ny"), "internal error")):

        def fail(*_: Any, error: BaseException = problem, **__: Any) -> None:
            raise error

        monkeypatch.setattr(jobs.label, "run_label", fail)
        _, _, err = ovsops("run", write_recipe(), *INLINE, *JSON)
        assert lines(err)[-1]["what"].startswith(what)


def test_numbers_and_texts_that_json_does_not_have() -> None:
    record = logging.LogRecord("x", logging.INFO, "f", 1, "m", (), None)
    told = {"a": float("nan"), "b": [float("inf"), 1.5], "c": "\x1b[2J\ud800", "message": "not this one"}
    record.__dict__.update(facts("e", **told))
    line = JsonFormatter().format(record)
    assert json.loads(line) | {"time": 0} == {
        "time": 0,
        "level": "info",
        "logger": "x",
        "message": "m",
        "event": "e",
        "a": None,
        "b": [None, 1.5],
        "c": "\\x1b[2J\\ud800",
    }


def test_records_of_ray_are_json_too_and_handlers_of_others_stay_as_they_are() -> None:
    ray_logger = logging.getLogger("ray")
    own = [each for each in ray_logger.handlers if type(each).__module__.startswith("ray")]
    before = [(handler, handler.formatter) for handler in own]
    other = logging.StreamHandler()
    ray_logger.addHandler(other)
    configure_logging(log_format="json", verbose=False)
    format_ray_records()
    try:
        assert is_json()
        record = logging.LogRecord("ray", logging.WARNING, "f", 1, "a node\nis slow", (), None)
        assert [lines(handler.format(record))[0]["message"] for handler in own] == ["a node\\nis slow"]
        assert other.formatter is None
    finally:
        ray_logger.removeHandler(other)
        for handler, formatter in before:
            handler.setFormatter(formatter)


def test_warnings_of_python_are_json_too(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logging(log_format="json", verbose=False)
    logging.getLogger("py.warnings").warning("file.py:1: UserWarning: x\n  code")
    assert "UserWarning" in lines(capfd.readouterr().err)[0]["message"]


@pytest.mark.parametrize(
    ("words", "rest", "file"),
    [
        (["run", "r", "--metrics-file", "a.prom"], ["run", "r"], "a.prom"),
        (["--metrics-file=a.prom", "run"], ["run"], "a.prom"),
        (["run", "--metrics-file"], ["run", "--metrics-file"], None),
        (["run", "--metrics-file", "--debug"], ["run", "--metrics-file"], None),
        (["run", "--log-format", "xml"], ["run", "--log-format", "xml"], None),
    ],
)
def test_common_options_at_any_place(words: list[str], rest: list[str], file: str | None) -> None:
    found, common = take_common_options(words)
    assert found == rest
    assert common.metrics_file == (None if file is None else Path(file))


def test_the_metrics_of_a_command_end_with_its_code(
    write_recipe: Write, ovsops: Call, tmp_path: Path
) -> None:
    metrics = tmp_path / "m.prom"
    assert ovsops("run", write_recipe(), *INLINE, "--metrics-file", metrics)[0] == 0
    assert "ovsops_exit_code 0\n" in metrics.read_text()
    assert 'ovsops_shards_total{work="label"' in metrics.read_text()
    assert ovsops("run", tmp_path / "no.yaml", f"--metrics-file={metrics}")[0] == 2
    assert metrics.read_text().startswith("# HELP ovsops_exit_code")
    assert "ovsops_exit_code 2\n" in metrics.read_text()
    assert ovsops("status", tmp_path / "out")[0] == 0  # without the option the file stays
    assert "ovsops_exit_code 2\n" in metrics.read_text()
