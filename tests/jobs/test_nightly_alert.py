"""What a night says: one JSON line that a machine can trust, without secrets, and what a person reads."""

import json
from typing import Any

import pytest

from jobs.nightly_alert import alert_line, alert_lines, finished_alert, unfinished_alert
from jobs.nightly_recipe import WatchConfig
from pipelines.nightly import NightPlan, NightShard

SECRET = "wJalrXUtnFEMI-K7MDENG"


def plan(*names: str) -> NightPlan:
    shards = tuple(NightShard(id=name, name=name, size=1, tag="t", head="h") for name in names)
    return NightPlan(
        night="two", began=1.0, shards=shards, known=3, copies={"c": "b"}, replaced=(), before="one"
    )


def label_step(**changes: Any) -> dict[str, Any]:
    known = {
        "over_limits": [],
        "shards": 1,
        "failed_shards": {"count": 0, "first": {}},
        "images": {"read": 5, "labelled": 4, "skipped": 0, "failed": 1, "instances": 9},
        "failures_by_code": {"E_TIMEOUT": 1},
        "not_labelled": [],
    }
    return known | changes


CANARY = {"differs": False, "says": "the canary's labels are what they were (4 images)", "why": ""}
DIFFERS = {"differs": True, "says": "the canary differs", "why": "checkpoint mapper: a -> b"}
DRIFT: dict[str, Any] = {
    "alarm": True,
    "alarms": ["class_mix drifted: PSI 0.9"],
    "named": ["checkpoint mapper"],
    "compared_with": "one",
}


def alert(**changes: Any) -> dict[str, Any]:
    known: dict[str, Any] = {
        "number": 1,
        "output": "/out",
        "steps": {"label": label_step()},
        "seconds": {"label": 2.5},
        "model_seconds": 1.5,
        "drift": {"alarm": False, "alarms": [], "named": []},
        "canary": {**CANARY, "compared_with": "one"},
        "changed": {},
        "prune": None,
        "watch": WatchConfig(),
    }
    return finished_alert(plan("a"), **known | changes)


def test_a_quiet_night() -> None:
    said = alert()
    assert (said["state"], said["exit_code"], said["alarms"], said["next"]) == ("done", 0, [], "")
    assert said["shards"]["new"] == said["shards"]["labelled"] == 1
    assert said["failures_by_code"] == {"E_TIMEOUT": 1}
    assert said["cost"] == {"seconds": 2.5, "seconds_by_step": {"label": 2.5}, "model_seconds": 1.5}
    line = alert_line(said)
    assert line.count("\n") == 1
    assert json.loads(line) == said
    lines = list(alert_lines(said))
    assert lines[0] == "night two: done"
    assert any("1 E_TIMEOUT" in each for each in lines)


@pytest.mark.parametrize(
    ("changes", "alarm", "command"),
    [
        (
            {"drift": DRIFT},
            "drift since night one: class_mix drifted: PSI 0.9; changed: checkpoint mapper",
            "ovsops diff /out/nights/one/label /out/nights/two/label",
        ),
        (
            {"canary": {**DIFFERS, "compared_with": "one"}},
            "the canary differs: checkpoint mapper: a -> b",
            "ovsops diff /out/nights/one/canary /out/nights/two/canary",
        ),
    ],
)
def test_alarms_end_with_3_unless_the_recipe_only_notes_them(
    changes: dict[str, Any], alarm: str, command: str
) -> None:
    said = alert(**changes)
    assert (said["state"], said["exit_code"], said["alarms"]) == ("attention", 3, [alarm])
    assert said["next"].startswith(command)
    noted = alert(**changes, watch=WatchConfig(drift="note", canary="note"))
    assert (noted["state"], noted["exit_code"], noted["alarms"]) == ("done", 0, [])


def test_limits_of_steps_end_with_3() -> None:
    said = alert(steps={"label": label_step(over_limits=["2 of 5 images failed"])})
    assert (said["state"], said["exit_code"]) == ("attention", 3)
    assert said["over_limits"] == ["label: 2 of 5 images failed"]
    assert said["next"] == "ovsops status /out/nights/two/label"


def test_secrets_and_control_characters_do_not_come_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    signed = f"https://bucket/a.tar?X-Amz-Signature=abc123def&x={SECRET}\x1b[2J"
    failed = {"count": 1, "first": {f"{SECRET}.tar": signed}}
    said = alert(steps={"label": label_step(failed_shards=failed)}, output=f"s3://{SECRET}/x")
    for text in (
        alert_line(said),
        "\n".join(alert_lines(said)),
        alert_line(unfinished_alert(state="failed", exit_code=4, output=signed, error=signed)),
    ):
        assert SECRET not in text
        assert "abc123def" not in text
        assert "\x1b" not in text
        assert "\\u001b" not in text


def test_numbers_that_json_does_not_have_become_null() -> None:
    said = alert(changed={"checkpoint": [], "recipe": [], "code": [], "x": float("nan")})
    assert json.loads(alert_line(said))["changed"]["x"] is None


def test_a_start_without_an_end_says_why() -> None:
    said = unfinished_alert(
        state="failed",
        exit_code=5,
        output="/out",
        error="x" * 5000,
        plan=plan("a"),
        steps=["canary"],
        advice="again",
    )
    assert len(said["error"]) == 2000
    assert (said["night"], said["finished_steps"], said["next"]) == ("two", ["canary"], "again")
    assert unfinished_alert(state="locked", exit_code=5, output="/out")["night"] is None
