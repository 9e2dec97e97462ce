"""What is known of a label run before its tables are opened: manifest, summary, commit records."""

import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ovsops.errors import OutputError, VocabularyError
from ovsops.text.vocabulary import Vocabulary
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import read_manifest
from pipelines.storage import Storage
from pipelines.summary import SUMMARY

logger = logging.getLogger(__name__)

KILLED = "unknown"
"""State of a run that left no summary: it was killed, or it runs now."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """A run as its own records tell of it."""

    output: str
    manifest: Mapping[str, Any]
    vocabulary: Vocabulary
    summary: Mapping[str, Any]
    """Empty where there is none."""
    commits: tuple[Commit, ...]
    """The current record of every shard, by name."""
    spans: Mapping[str, Sequence[Sequence[float]]]
    """When stages worked, all records together, retries included."""
    broken: tuple[str, ...]
    """Sentences about what must not be."""
    codes: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)

    @property
    def state(self) -> str:
        """done, interrupted, error, not started; `unknown` without a summary."""
        return str(self.summary.get("state", KILLED))

    @property
    def totals(self) -> dict[str, int]:
        """Images read, labelled, skipped, failed; regions."""
        names = ("read", "labelled", "skipped", "failed", "instances")
        return {name: sum(getattr(commit, name) for commit in self.commits) for name in names}

    @property
    def pending(self) -> int | None:
        """Shards that were not done when the last start ended; None where nobody knows."""
        return self.summary.get("shards", {}).get("pending")

    @property
    def failed_shards(self) -> Mapping[str, str]:
        """Shards that could not be read at all, with code and message."""
        return self.summary.get("shards", {}).get("failed", {})

    @property
    def damaged(self) -> dict[str, str]:
        """Archives that were cut short: what they lost cannot be counted."""
        return {c.name: f"{c.damage_code}: {c.damage}" for c in self.commits if not c.complete}

    @property
    def over_limits(self) -> Sequence[str]:
        """Sentences about limits that were passed."""
        return self.summary.get("over_limits", [])

    @property
    def placement(self) -> Mapping[str, Any]:
        """Where the models ran: actors, CPUs and GPUs of each."""
        return self.manifest.get("settings", {}).get("segment_on", {})

    @property
    def num_gpus(self) -> float:
        """GPUs that all model workers held together."""
        return float(self.placement.get("num_gpus", 0.0)) * self.num_actors

    @property
    def num_actors(self) -> int:
        """Model workers."""
        return max(1, int(self.placement.get("actors", 1)))

    @property
    def failed_limit(self) -> float | None:
        """Share of failed images that the recipe allows."""
        return self.manifest.get("settings", {}).get("limits", {}).get("max_failed_share")


def read_facts(storage: Storage) -> RunFacts:
    """Everything but the tables. Raises `OutputError` where no label run wrote."""
    manifest = read_manifest(storage)
    if "vocabulary" not in manifest:
        raise OutputError(
            f"{storage.url} is no output of the label job (its run.json has no vocabulary): name the folder that holds"
            " images/ and instances/"
        )
    try:
        vocabulary = Vocabulary.from_mapping(manifest["vocabulary"])
    except VocabularyError as error:
        raise OutputError(f"{storage.url}: the vocabulary in its run.json cannot be read: {error}") from error
    ledger = Ledger(storage)
    commits = tuple(ledger.read_all())
    facts = RunFacts(
        output=storage.url,
        manifest=manifest,
        vocabulary=vocabulary,
        summary=_summary(storage),
        commits=commits,
        spans=_spans(ledger, commits),
        broken=tuple(_broken(commits)),
    )
    for commit in commits:
        facts.codes.update(commit.codes)
        facts.notes.update(commit.notes)
    return facts


def _summary(storage: Storage) -> dict[str, Any]:
    try:
        found = json.loads(storage.read(SUMMARY))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        logger.warning("%s/%s is not JSON: %s", storage.url, SUMMARY, error)
        return {}
    return found if isinstance(found, dict) else {}


def _spans(ledger: Ledger, commits: Sequence[Commit]) -> dict[str, list[Sequence[float]]]:
    spans: dict[str, list[Sequence[float]]] = {}
    for commit in commits:
        records = [commit] + [ledger.read(commit.shard, n) for n in range(commit.retry)]
        for record in records:
            for stage, some in record.spans.items():
                spans.setdefault(stage, []).extend(some)
    return spans


def _broken(commits: Sequence[Commit]) -> list[str]:
    broken = []
    for commit in commits:
        try:
            commit.check_invariant()
        except AssertionError as error:
            broken.append(str(error))
    return broken
