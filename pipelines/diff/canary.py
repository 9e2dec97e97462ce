"""The canary: a frozen shard that is labelled every night. With one recipe, checkpoint and code its labels stay.

Pure functions on labels by image, so that nights can be compared that are long gone: a night keeps `canary_labels`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.counted import counted
from pipelines.diff.changes import Cause, listed
from pipelines.diff.compare import DiffResult
from pipelines.export import committed_rows
from pipelines.ledger import Ledger
from pipelines.storage import Storage

CanaryLabels = Mapping[str, str]
"""Digest of all labels of an image, by its content (SHA-256; shard and key where it could not be read)."""
_COLUMNS = ["image_uid", "category_id", "segmentation", "score", "score_calibrated", "decision"]


def canary_labels(storage: Storage, shards: frozenset[str] | None = None) -> dict[str, str]:
    """What a run says of each image: classes, masks, scores and decisions; of some shards by name, or of all.

    Digests do not depend on uids, order, or who made the labels: a new checkpoint of equal labels is no difference.
    """
    found: dict[str, str] = {}
    for commit in Ledger(storage).read_all():
        if shards is not None and commit.name not in shards:
            continue
        labels: dict[str, list[str]] = {}
        for row in committed_rows(storage, commit, "instances", _COLUMNS):
            mask = row["segmentation"]
            labels.setdefault(row["image_uid"], []).append(
                f"{row['category_id']} {mask['size']} {mask['counts']} {row['score']!r}"
                f" {row['score_calibrated']!r} {row['decision']}"
            )
        images = committed_rows(
            storage, commit, "images", ["image_uid", "shard", "key", "sha256", "status", "error_code"]
        )
        for image in images:
            said = [f"{image['status']} {image['error_code']}", *sorted(labels.get(image["image_uid"], []))]
            name = image["sha256"] or f"{image['shard']} {image['key']}"
            while name in found:  # the same bytes twice are two images
                name += "+"
            found[name] = hashlib.sha256("\n".join(said).encode()).hexdigest()
    return found


@dataclass(frozen=True, kw_only=True)
class CanaryVerdict:
    """Whether the canary's labels are what they were."""

    changed: tuple[str, ...]
    """Images whose labels differ."""
    gone: tuple[str, ...]
    """Images that were labelled then and not now: the shard is not the same."""
    new: tuple[str, ...]
    compared: int

    @property
    def differs(self) -> bool:
        """Whether anything is not as it was. A canary of no image says nothing, which counts as different."""
        return bool(self.changed or self.gone or self.new) or not self.compared

    def sentence(self) -> str:
        """For an alert."""
        if not self.compared and not (self.gone or self.new):
            return "the canary has no images: it cannot say anything"
        if not self.differs:
            return f"the canary's labels are what they were ({counted(self.compared, 'images')})"
        parts = []
        if self.changed:
            parts.append(
                f"labels of {len(self.changed)} of {counted(self.compared, 'images')} differ"
                f" ({listed(self.changed, 3)})"
            )
        if self.gone or self.new:
            parts.append(
                f"{counted(len(self.gone), 'images are')} gone and"
                f" {len(self.new)} {'is' if len(self.new) == 1 else 'are'} new: the shard is another one"
            )
        return f"the canary differs: {'; '.join(parts)}"


def canary_differs(labels_then: CanaryLabels, labels_now: CanaryLabels) -> CanaryVerdict:
    """Compare what two nights said of the canary."""
    common = labels_then.keys() & labels_now.keys()
    return CanaryVerdict(
        changed=tuple(sorted(name for name in common if labels_then[name] != labels_now[name])),
        gone=tuple(sorted(labels_then.keys() - common)),
        new=tuple(sorted(labels_now.keys() - common)),
        compared=len(common),
    )


@dataclass(frozen=True, kw_only=True)
class DriftVerdict:
    """A diff in the words of an alert."""

    is_alarm: bool
    alarms: tuple[str, ...]
    suspects: tuple[Cause, ...]
    named: tuple[str, ...]
    """What exactly changed of the suspects: `checkpoint mapper`, `recipe segmenter.threshold`."""
    why: tuple[str, ...]

    def to_plain(self) -> dict[str, object]:
        """One JSON line's worth."""
        return {
            "drift": self.is_alarm,
            "alarms": list(self.alarms),
            "suspects": list(self.suspects),
            "named": list(self.named),
            "why": list(self.why),
        }


def drift_verdict(result: DiffResult, *, of_data: bool = True) -> DriftVerdict:
    """Whether a night needs a look, and what to look at.

    Without `of_data`, what drifted in the pictures themselves (their size) does not alarm.
    """
    silent = {} if of_data else {each.alarm for each in result.drift.features if each.of_data and each.alarm}
    alarms = tuple(alarm for alarm in result.alarms if alarm not in silent)
    suspects = result.attribution.suspects if alarms else ()
    return DriftVerdict(
        is_alarm=bool(alarms),
        alarms=alarms,
        suspects=suspects,
        named=tuple(f"{cause} {change.name}" for cause in suspects for change in result.changes.of(cause)),
        why=result.attribution.sentences,
    )
