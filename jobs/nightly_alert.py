"""What a night says at its end: plain data for `night.json`, for one JSON line, and for a person. Pure functions.

Secrets are taken out of every text, whoever wrote it; nothing that a person must see comes from a log alone.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jobs.exits import ExitCode
from jobs.logs import escape_controls
from jobs.nightly_recipe import WatchConfig
from jobs.progress import duration
from pipelines.counted import counted
from pipelines.nightly import NightPlan
from pipelines.nightly_checks import MOST_NAMES, sentences_of
from pipelines.redact import redact

ALERT_VERSION = 1
MAX_TEXT = 2000


def plan_facts(plan: NightPlan) -> dict[str, Any]:
    """What a night was begun for."""
    return {
        "night": plan.night,
        "began_unix": round(plan.began, 3),
        "before": plan.before,
        "shards": {
            "known": plan.known,
            "new": len(plan.shards),
            "replaced": len(plan.replaced),
            "copies": len(plan.copies),
        },
    }


def alarms_of(watch: WatchConfig, drift: Mapping[str, Any], canary: Mapping[str, Any] | None) -> list[str]:
    """Sentences about what a night must not do, and did."""
    found: list[str] = []
    if canary is not None and canary.get("differs") and watch.canary == "alarm":
        found.append(canary["says"] + (f": {canary['why']}" if canary["why"] else ""))
    if drift.get("alarm") and watch.drift == "alarm":
        named = f"; changed: {', '.join(drift['named'][:MOST_NAMES])}" if drift["named"] else ""
        found.append(f"drift since night {drift['compared_with']}: {'; '.join(drift['alarms'])}{named}")
    return found


def finished_alert(
    plan: NightPlan,
    *,
    number: int,
    output: str,
    steps: Mapping[str, Mapping[str, Any]],
    seconds: Mapping[str, float],
    model_seconds: float,
    drift: Mapping[str, Any],
    canary: Mapping[str, Any] | None,
    changed: Mapping[str, Any],
    prune: Mapping[str, Any] | None,
    watch: WatchConfig,
) -> dict[str, Any]:
    """All that a finished night has to say. Images are tonight's: those of retries stand under `retried`."""
    alarms = alarms_of(watch, drift, canary)
    over = [
        f"{name}: {sentence}" for name, result in steps.items() for sentence in result.get("over_limits", [])
    ]
    label = steps["label"]
    state = "attention" if alarms or over else "done" if plan.shards else "nothing new"
    facts = plan_facts(plan)
    facts["shards"] |= {
        "labelled": label.get("shards", 0),
        "failed": label.get("failed_shards", {}).get("count", 0),
        "not_labelled": label.get("not_labelled", []),
    }
    return _cleaned(
        {
            "ovsops": "nightly",
            "version": ALERT_VERSION,
            "state": state,
            "exit_code": int(ExitCode.OVER_LIMITS if alarms or over else ExitCode.DONE),
            **facts,
            "number": number,
            "output": output,
            "images": label.get("images", {}),
            "failures_by_code": label.get("failures_by_code", {}),
            "retried": {name: steps.get("retry", {}).get(name, 0) for name in ("tried", "mended")},
            "alarms": alarms,
            "over_limits": over,
            "changed": changed,
            "drift": drift,
            "canary": canary,
            "steps": {
                name: {key: value for key, value in result.items() if key not in ("labels", "over_limits")}
                for name, result in steps.items()
            },
            "cost": {
                "seconds": round(sum(seconds.values()), 3),
                "seconds_by_step": {name: round(value, 3) for name, value in seconds.items()},
                "model_seconds": round(model_seconds, 3),
            },
            "prune": prune,
            "error": "",
            "next": next_step(plan, output, state, steps, drift, canary),
        }
    )


def next_step(
    plan: NightPlan,
    output: str,
    state: str,
    steps: Mapping[str, Mapping[str, Any]],
    drift: Mapping[str, Any],
    canary: Mapping[str, Any] | None,
) -> str:
    """The one command that somebody who is woken runs first."""
    here, there = (
        f"{output}/nights/{plan.night}",
        f"{output}/nights/{canary['compared_with'] if canary else ''}",
    )
    if canary is not None and canary.get("differs"):
        return f"ovsops diff {there}/canary {here}/canary"
    if drift.get("alarm"):
        return f"ovsops diff {output}/nights/{plan.before}/label {here}/label"
    if state == "attention":
        return f"ovsops status {here}/label"
    if "form" in steps.get("audit", {}):
        return f"ovsops audit {here}/label --filled {steps['audit']['form']}"
    return ""


def unfinished_alert(
    *,
    state: str,
    exit_code: int,
    output: str,
    error: str = "",
    plan: NightPlan | None = None,
    steps: Sequence[str] = (),
    advice: str = "",
) -> dict[str, Any]:
    """What is said of a start that did not commit its night. `steps` are those that are finished."""
    return _cleaned(
        {
            "ovsops": "nightly",
            "version": ALERT_VERSION,
            "state": state,
            "exit_code": exit_code,
            **({"night": None} if plan is None else plan_facts(plan)),
            "output": output,
            "finished_steps": list(steps),
            "error": error,
            "next": advice,
        }
    )


def alert_line(alert: Mapping[str, Any]) -> str:
    """One line of ASCII JSON."""
    return json.dumps(alert, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


def alert_lines(alert: Mapping[str, Any]) -> Iterator[str]:
    """The same for a person."""
    shards, images = alert["shards"], alert["images"]
    yield f"night {alert['night']}: {alert['state']}"
    yield (
        f"{counted(shards['new'], 'new shards')} ({shards['replaced']} under a known name,"
        f" {counted(shards['copies'], 'copies')} left out),"
        f" {shards['known']} done before; {shards['labelled']} labelled, {shards['failed']} failed"
    )
    if images:
        codes = ", ".join(f"{count} {code}" for code, count in alert["failures_by_code"].items())
        yield (
            f"{counted(images['read'], 'images')}: {images['labelled']} labelled, {images['skipped']} skipped,"
            f" {images['failed']} failed{f' ({codes})' if codes else ''}; {counted(images['instances'], 'regions')}"
        )
    if alert["retried"]["tried"]:
        mended, tried = (alert["retried"][name] for name in ("mended", "tried"))
        yield f"{mended} of {tried} failed rows of earlier nights are labelled now"
    yield from (f"changed: {sentence}" for sentence in sentences_of(alert["changed"]))
    if alert["canary"] is not None:
        yield alert["canary"]["says"]
    if note := alert["drift"].get("not_tested"):
        yield f"drift was not tested: {note}"
    yield from (f"ALARM: {sentence}" for sentence in alert["alarms"])
    yield from (f"over the limits: {sentence}" for sentence in alert["over_limits"])
    if (prune := alert["prune"]) and prune["files"]:
        verb = "deleted" if prune["deleted"] is not None else "may go (keep.delete is false)"
        yield f"{prune['files']} files of old nights, {prune['bytes'] / 1e6:.1f} MB, {verb}"
    yield f"{duration(alert['cost']['seconds'])}, {duration(alert['cost']['model_seconds'])} of them in the model"
    if images and images["read"]:
        yield f"one page about it: ovsops report {alert['output']}/nights/{alert['night']}/label"
    if alert["next"]:
        yield f"next: {alert['next']}"


def _cleaned(value: Any) -> Any:
    """Without secrets, control characters, endless texts, and numbers that JSON does not have."""
    if isinstance(value, str):
        text = escape_controls(redact(value))
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."
    if isinstance(value, Mapping):
        return {_cleaned(str(key)): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(each) for each in value]
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return None
    return value
