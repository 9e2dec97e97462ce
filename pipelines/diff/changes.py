"""What two runs were made with, compared: data, checkpoints, recipe, code."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipelines.ledger import Commit
from pipelines.manifest import differences

Cause = Literal["data", "checkpoint", "recipe", "code"]
CAUSES: tuple[Cause, ...] = ("data", "checkpoint", "recipe", "code")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One thing that is not the same in both."""

    cause: Cause
    name: str
    """A role, a field's dotted path, a package, or a shard."""
    earlier: str
    now: str

    def sentence(self) -> str:
        """`mapper: sha256 960408305825 -> sha256 1c2d3e4f5a6b`."""
        return f"{self.name}: {self.earlier} -> {self.now}"


@dataclass(frozen=True, kw_only=True)
class ShardChange:
    """How the shards of two runs are related, by name and content."""

    same: int
    """Same name and same bytes, or same bytes under another name."""
    replaced: tuple[str, ...]
    """Same name, other bytes."""
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]

    @property
    def is_same(self) -> bool:
        """Whether both runs read the same shards."""
        return not (self.replaced or self.only_first or self.only_second)


@dataclass(frozen=True, kw_only=True)
class RunChanges:
    """All that two runs do not share."""

    changes: tuple[Change, ...]
    shards: ShardChange

    def of(self, cause: Cause) -> tuple[Change, ...]:
        """Those of one cause."""
        return tuple(change for change in self.changes if change.cause == cause)

    @property
    def causes(self) -> tuple[Cause, ...]:
        """Causes that something changed in, in the order of `CAUSES`."""
        return tuple(cause for cause in CAUSES if self.of(cause))


def changes_between(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    first_commits: Sequence[Commit],
    second_commits: Sequence[Commit],
) -> RunChanges:
    """Compare two manifests and what was committed under them."""
    shards = shard_change(first_commits, second_commits)
    found = [
        *_data(shards),
        *_checkpoints(first, second),
        *_recipe(first, second),
        *_code(first, second),
    ]
    return RunChanges(changes=tuple(found), shards=shards)


def shard_change(first: Sequence[Commit], second: Sequence[Commit]) -> ShardChange:
    """Shards by name and content. A shard without a checksum (a folder) is compared by its tag."""
    one, two = ({commit.name: _content(commit) for commit in commits} for commits in (first, second))
    contents = [set(each.values()) for each in (one, two)]
    common = one.keys() & two.keys()
    replaced = sorted(name for name in common if one[name] != two[name])
    only_first = sorted(n for n in one.keys() - common if one[n] not in contents[1])
    only_second = sorted(n for n in two.keys() - common if two[n] not in contents[0])
    return ShardChange(
        same=len(two) - len(replaced) - len(only_second),
        replaced=tuple(replaced),
        only_first=tuple(only_first),
        only_second=tuple(only_second),
    )


def _content(commit: Commit) -> str:
    return commit.sha256 or f"{commit.size} {commit.tag}"


def _data(shards: ShardChange) -> Iterator[Change]:
    for names, earlier, now in (
        (shards.replaced, "one content", "another"),
        (shards.only_first, "read", "not read"),
        (shards.only_second, "not read", "read"),
    ):
        for name in names:
            yield Change(cause="data", name=f"shard {name}", earlier=earlier, now=now)


def _checkpoints(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    one, two = (manifest.get("checkpoints", {}) for manifest in (first, second))
    for role in sorted({*one, *two}):
        earlier, now = one.get(role), two.get(role)
        # Weights decide: the same file from another place is the same checkpoint.
        if _weights(earlier) != _weights(now):
            yield Change(cause="checkpoint", name=role, earlier=_identity(earlier), now=_identity(now))


def _weights(identity: str | None) -> str | None:
    return None if identity is None else identity.rpartition(" ")[2]


def _identity(identity: str | None) -> str:
    if identity is None:
        return "none"
    place, _, weights = identity.rpartition(" ")
    kind, colon, digest = weights.partition(":")
    return f"{place} {kind}{colon}{digest[:12]}".strip()


_CONTENT_FIELDS = ("sha256", "source", "revision")
"""Fields of a recipe that name a checkpoint: `checkpoints` says what became of it."""


def _recipe(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    one, two = (_without_checkpoints(manifest.get("recipe", {})) for manifest in (first, second))
    for cause, each in _leaves(one, two):
        path, _, values = each.partition(": ")
        earlier, _, now = values.rpartition(" -> ")
        yield Change(cause=cause, name=path, earlier=earlier, now=now)
    if first.get("questions") != second.get("questions"):
        yield Change(cause="code", name="questions", earlier="one wording", now="another")


def _leaves(one: Any, two: Any) -> Iterator[tuple[Cause, str]]:
    for each in differences(one, two):
        # A calibrator was fitted, as weights are: a new one is no change of the recipe by hand.
        yield ("checkpoint" if each.startswith("calibrator") else "recipe"), each


def _without_checkpoints(plain: Any, path: tuple[str, ...] = ()) -> Any:
    """Plain data without what names a checkpoint, and without the inputs: others say what became of those."""
    if isinstance(plain, Mapping):
        is_checkpoint = "sha256" in plain and path[:1] != ("calibrator",)
        return {
            key: _without_checkpoints(value, (*path, key))
            for key, value in plain.items()
            if not (is_checkpoint and key in _CONTENT_FIELDS) and (*path, key) != ("input", "shards")
        }
    if isinstance(plain, list):
        return [_without_checkpoints(value, (*path, str(place))) for place, value in enumerate(plain)]
    return plain


def _code(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[Change]:
    one, two = (
        {**manifest.get("versions", {}), "schema": manifest.get("schema_version")}
        for manifest in (first, second)
    )
    for name in sorted({*one, *two}):
        if one.get(name) != two.get(name):
            yield Change(cause="code", name=name, earlier=_shown(one.get(name)), now=_shown(two.get(name)))
    devices = [manifest.get("settings", {}).get("model", {}).get("device") for manifest in (first, second)]
    if devices[0] != devices[1]:
        yield Change(cause="code", name="model.device", earlier=_shown(devices[0]), now=_shown(devices[1]))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def listed(names: Iterable[str], most: int = 5) -> str:
    """`a, b, c and 7 others`."""
    names = list(names)
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} others" if rest > 0 else "")
