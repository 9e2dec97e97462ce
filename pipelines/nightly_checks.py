"""What a night is compared with: the last one's labels as a population, and the canary's, image by image.

Everything is plain data, for records and alerts. Names of shards are cut short: a night may have a hundred thousand.
"""

from collections.abc import Mapping
from typing import Any

from ovsops.errors import ConfigError, OutputError
from ovsops.text.vocabulary import Vocabulary, check_append_only
from pipelines.diff.canary import CanaryLabels, canary_differs, drift_verdict
from pipelines.diff.changes import RunChanges, changes_between
from pipelines.diff.compare import diff_runs
from pipelines.diff.config import DiffConfig
from pipelines.ledger import Ledger
from pipelines.manifest import MANIFEST, read_manifest
from pipelines.storage import Storage

MOST_NAMES = 5
"""Shards that a record names; the others are counted."""


def has_labels(storage: Storage) -> bool:
    """Whether a label output is there and has committed shards: it may be pruned, or of a night with nothing new."""
    return storage.exists(MANIFEST) and bool(Ledger(storage).committed())


def check_vocabulary(before: Storage, vocabulary: Vocabulary) -> None:
    """Raise OutputError where tonight's vocabulary moves an id of the last night's."""
    earlier = Vocabulary.from_mapping(read_manifest(before)["vocabulary"])
    try:
        check_append_only(earlier, vocabulary)
    except ConfigError as error:
        raise OutputError(
            f"{before.url}: the last night has another vocabulary: {error}; ids never move from night to night"
        ) from error


def plain_changes(changes: RunChanges) -> dict[str, Any]:
    """What two runs were made with and do not share: all of checkpoints, recipe and code; shards as counts."""
    return {
        cause: [
            {"name": change.name, "earlier": change.earlier, "now": change.now}
            for change in changes.of(cause)
        ]
        for cause in ("checkpoint", "recipe", "code")
    }


def changed_since(before: Storage, now: Storage) -> dict[str, Any]:
    """Checkpoints, fields of the recipe and versions that are not those of another run."""
    manifests = [read_manifest(storage) for storage in (before, now)]
    return plain_changes(changes_between(manifests[0], manifests[1], [], []))


def sentences_of(changed: Mapping[str, Any]) -> list[str]:
    """`checkpoint mapper: miniature sha256:1a2b -> ...`."""
    return [
        f"{cause} {change['name']}: {change['earlier']} -> {change['now']}"
        for cause, changes in changed.items()
        for change in changes
    ]


def compare_populations_of(
    before: Storage, now: Storage, config: DiffConfig, *, of_data: bool
) -> dict[str, Any]:
    """Whether tonight's labels are those of another population than the last night's, and what may be why."""
    result = diff_runs(before, now, config)
    verdict = drift_verdict(result, of_data=of_data)
    shards = [name for name in verdict.named if name.startswith("data ")]
    named = [name for name in verdict.named if not name.startswith("data ")]
    if shards:
        named.append(f"data: {len(shards)} shards that only one of the nights has")
    return {
        "alarm": verdict.is_alarm,
        "alarms": list(verdict.alarms),
        "suspects": list(verdict.suspects),
        "named": named,
        "why": list(verdict.why),
        "not_tested": result.drift.not_tested,
        "images": [facts.images for facts in result.runs],
        "changed": plain_changes(result.changes),
    }


def told_by_canary(drift: Mapping[str, Any], canary: Mapping[str, Any] | None) -> dict[str, Any]:
    """Drift with what the canary adds: nights share no images, but the canary's are the same ones every night.

    Labels of the canary that stayed rule out everything but the data; those that differ say that the labelling changed.
    """
    if canary is None or not drift.get("alarm") or canary["compared_with"] != drift["compared_with"]:
        return dict(drift)
    if canary["changed"]:
        suspects = [cause for cause in drift["suspects"] if cause != "data"]
        why = (
            "labels of the canary's same images differ, too: the labelling itself changed, not the data alone"
        )
        return {
            **drift,
            "suspects": [*suspects, *(cause for cause in drift["suspects"] if cause == "data")],
            "why": [why],
        }
    if canary["differs"]:
        return dict(drift)
    return {
        **drift,
        "suspects": [cause for cause in drift["suspects"] if cause == "data"],
        "named": [name for name in drift["named"] if name.startswith("data")],
        "why": [
            "the canary's labels are what they were: what drifted came with the shards, not with the labelling"
        ],
    }


def compare_canaries(
    then: CanaryLabels, now: CanaryLabels, changed: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Whether the canary's labels are those of the last night, and what changed since.

    Without a change a difference means that the labelling is not deterministic, or that the shard is another one.
    `changed` is None where the last night's canary output is gone.
    """
    verdict = canary_differs(then, now)
    named = [] if changed is None else sentences_of(changed)
    why = ""
    if verdict.differs and verdict.changed:
        why = (
            "; ".join(named)
            if named
            else "what the last night was made with is gone"
            if changed is None
            else "neither checkpoints, recipe nor versions changed: the labelling is not deterministic here"
        )
    return {
        "differs": verdict.differs,
        "says": verdict.sentence(),
        "images": verdict.compared,
        "changed": len(verdict.changed),
        "gone": len(verdict.gone),
        "new": len(verdict.new),
        "examples": list(verdict.changed[:MOST_NAMES]),
        "named": named,
        "why": why,
    }
