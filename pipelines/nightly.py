"""Nights: which shards are new by content, and one committed record a night.

    OUT/_lock.json                     one night at a time
    OUT/plans/NIGHT.json               created first: the shards that the night is about
    OUT/ledger/NIGHT.json              created last, once: the night is done; never pruned
    OUT/nights/NIGHT/steps/STEP.json   what a finished step did: a start after a kill does not do it again
    OUT/nights/NIGHT/night.json        what the alert says
    OUT/nights/NIGHT/label ...         outputs of the steps

A night without a record in the ledger goes on as the same night. A shard is done when a committed night has labelled
its bytes, whatever it is called now. An archive that looks new is compared by size and its first bytes, and where both
agree by SHA-256, so that telling costs one small read a shard. A folder of images is its members' paths, sizes and
tags.
"""

import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ovsops.errors import ConfigError, OutputError
from pipelines.ledger import Commit
from pipelines.manifest import NIGHTS
from pipelines.shards import Shard
from pipelines.storage import Storage, StorageOptions, open_storage, split_url

NIGHT_VERSION = 1
"""Of ledger records and plans."""
PLANS, LEDGER, NIGHT, STEPS = "plans", "ledger", "night.json", "steps"
HEAD_BYTES = 1 << 16
"""First bytes of an archive that tell most of them apart."""
_READERS = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class NightShard:
    """A shard as a night saw it."""

    id: str
    """`Shard.id`: path, size and content tag."""
    name: str
    size: int
    """Bytes."""
    tag: str
    head: str
    """Digest of the first bytes of an archive; empty for a folder."""
    sha256: str = ""
    """Of the bytes that were labelled; empty for a folder, and before it is labelled."""


@dataclass(frozen=True, kw_only=True)
class NightPlan:
    """What a night was begun for."""

    night: str
    began: float
    """Unix seconds."""
    shards: tuple[NightShard, ...]
    """To be labelled, sorted by name."""
    known: int
    """Shards of the inputs that earlier nights have labelled."""
    copies: Mapping[str, str]
    """Shards whose bytes are those of another one, by name: of tonight, or of an earlier night."""
    replaced: tuple[str, ...]
    """Names among `shards` that an earlier night has labelled with other bytes."""
    before: str
    """The last committed night that labelled something; empty for the first."""

    def to_bytes(self) -> bytes:
        """JSON."""
        return _to_bytes({"version": NIGHT_VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "NightPlan":
        """Inverse of `to_bytes`."""
        plain = _checked(json.loads(data), PLANS)
        shards = tuple(NightShard(**shard) for shard in plain.pop("shards"))
        return cls(**plain | {"shards": shards, "replaced": tuple(plain["replaced"])})


@dataclass(frozen=True, kw_only=True)
class NightRecord:
    """A committed night."""

    night: str
    number: int
    """How many were committed before it."""
    state: str
    """`done`, `attention` (an alarm or a limit), `nothing new`, or `given up`."""
    before: str
    shards: tuple[NightShard, ...]
    """That it labelled."""
    canary: Mapping[str, str] = field(default_factory=dict)
    """Digest of the labels of each canary image (`pipelines.diff.canary`)."""
    alert: Mapping[str, Any] = field(default_factory=dict)
    """What `night.json` and the alert say."""

    def to_bytes(self) -> bytes:
        """JSON."""
        return _to_bytes({"version": NIGHT_VERSION, **asdict(self)})

    @classmethod
    def from_bytes(cls, data: bytes) -> "NightRecord":
        """Inverse of `to_bytes`."""
        plain = _checked(json.loads(data), LEDGER)
        return cls(**plain | {"shards": tuple(NightShard(**shard) for shard in plain["shards"])})


def _to_bytes(plain: Mapping[str, Any]) -> bytes:
    return (json.dumps(plain, indent=1, sort_keys=True, ensure_ascii=True) + "\n").encode()


def _checked(plain: dict[str, Any], what: str) -> dict[str, Any]:
    if (version := plain.pop("version", None)) != NIGHT_VERSION:
        raise OutputError(
            f"{what}: written by version {version} of the nightly job, this one reads {NIGHT_VERSION}: choose another"
            " output"
        )
    return plain


def check_night_name(name: str) -> str:
    """The name, or ConfigError: it becomes a folder."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"--night {name!r}: give letters, digits, `-`, `_` or `.`, at most 60")
    return name


class NightLedger:
    """The nights of an output. Whoever writes holds the output's lock."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage

    def read_all(self) -> list[NightRecord]:
        """Committed nights in the order in which they were committed."""
        paths = [info.path for info in self.storage.list(LEDGER) if info.path.endswith(".json")]
        with ThreadPoolExecutor(_READERS) as pool:
            records = list(pool.map(lambda path: NightRecord.from_bytes(self.storage.read(path)), paths))
        return sorted(records, key=lambda record: record.number)

    def unfinished(self, records: Iterable[NightRecord]) -> str | None:
        """The night that was begun and not committed. Lists plans alone: nights may hold millions of images."""
        done = {f"{PLANS}/{record.night}.json" for record in records}
        paths = [info.path for info in self.storage.list(PLANS) if info.path.endswith(".json")]
        found = [path.removeprefix(f"{PLANS}/").removesuffix(".json") for path in paths if path not in done]
        if len(found) > 1:
            raise OutputError(
                f"{self.storage.url}: {len(found)} nights are not finished ({', '.join(found)}), which one lock never"
                f" allows: delete {PLANS}/NIGHT.json of those that are not wanted"
            )
        return found[0] if found else None

    def begin(self, plan: NightPlan) -> None:
        """Note the plan of a new night."""
        if not self.storage.create(f"{PLANS}/{plan.night}.json", plan.to_bytes()):
            raise OutputError(f"{self.storage.url}: night {plan.night} was begun before; choose another name")

    def plan(self, night: str) -> NightPlan:
        """What a night was begun for."""
        return NightPlan.from_bytes(self.storage.read(f"{PLANS}/{night}.json"))

    def step(self, night: str, step: str) -> dict[str, Any] | None:
        """What a finished step of a night did; None where it is not finished."""
        try:
            plain: dict[str, Any] = json.loads(self.storage.read(f"{NIGHTS}/{night}/{STEPS}/{step}.json"))
        except FileNotFoundError:
            return None
        return plain

    def note_step(self, night: str, step: str, result: Mapping[str, Any]) -> None:
        """A step is finished."""
        self.storage.put(f"{NIGHTS}/{night}/{STEPS}/{step}.json", _to_bytes(result))

    def commit(self, record: NightRecord) -> None:
        """Make a night done, then say so in its folder."""
        if not self.storage.create(f"{LEDGER}/{record.night}.json", record.to_bytes()):
            raise OutputError(f"{self.storage.url}: night {record.night} was committed by another run")
        self.say(record.night, record.alert)

    def say(self, night: str, alert: Mapping[str, Any]) -> None:
        """Write `night.json`."""
        self.storage.put(f"{NIGHTS}/{night}/{NIGHT}", _to_bytes(alert))

    def recover(self, records: Sequence[NightRecord]) -> None:
        """Finish what a start that was killed after its commit left undone. Only with the lock held."""
        if records and not self.storage.exists(f"{NIGHTS}/{records[-1].night}/{NIGHT}"):
            self.say(records[-1].night, records[-1].alert)

    def new_name(self, records: Iterable[NightRecord], *, now: float) -> str:
        """The date (UTC), with a number where that night is committed."""
        taken = {record.night for record in records}
        date = time.strftime("%Y-%m-%d", time.gmtime(now))
        names = (date if number == 1 else f"{date}.{number}" for number in range(1, len(taken) + 2))
        return next(name for name in names if name not in taken)


def plan_night(
    night: str,
    shards: Sequence[Shard],
    records: Sequence[NightRecord],
    options: StorageOptions,
    *,
    began: float,
) -> NightPlan:
    """Which of the inputs' shards no committed night has labelled. Reads the first bytes of those that look new."""
    done = [shard for record in records for shard in record.shards]
    ids, names = {shard.id for shard in done}, {shard.name for shard in done}
    looks_new = [shard for shard in shards if shard.id not in ids]
    with ThreadPoolExecutor(_READERS) as pool:
        seen = list(pool.map(lambda shard: _seen(shard, options), looks_new))
    known: dict[tuple[int, str], list[NightShard]] = defaultdict(list)
    for earlier in done:
        known[_likeness(earlier)].append(earlier)
    new: list[NightShard] = []
    copies: dict[str, str] = {}
    num_known = len(shards) - len(looks_new)
    for shard, look in zip(looks_new, seen, strict=True):
        rivals = known[_likeness(look)]
        if rivals and look.head:
            look = replace(look, sha256=_sha256(shard, options))
        twin = next((rival for rival in rivals if _is_same(look, rival, shards, options)), None)
        if twin is None:
            new.append(look)
            known[_likeness(look)].append(look)
            continue
        num_known += 1
        if twin.name != look.name:
            copies[look.name] = twin.name
    with_labels = [record.night for record in records if record.shards]
    return NightPlan(
        night=night,
        began=began,
        shards=tuple(new),
        known=num_known,
        copies=copies,
        replaced=tuple(shard.name for shard in new if shard.name in names),
        before=with_labels[-1] if with_labels else "",
    )


def _likeness(shard: NightShard) -> tuple[int, str]:
    return (shard.size, shard.head or shard.tag)


def _is_same(look: NightShard, rival: NightShard, shards: Sequence[Shard], options: StorageOptions) -> bool:
    """Whether two shards that look alike hold the same bytes."""
    if not look.head:
        return True  # a folder: its tag covers paths, sizes and tags of all its files
    sha256 = rival.sha256
    if not sha256:  # it is new tonight, too
        sha256 = next(_sha256(shard, options) for shard in shards if shard.id == rival.id)
    return sha256 == look.sha256


def _seen(shard: Shard, options: StorageOptions) -> NightShard:
    """A shard with the digest of its first bytes."""
    head = ""
    if shard.kind == "tar":
        folder, name = split_url(shard.url)
        with open_storage(folder, options).open(name) as file:
            head = hashlib.blake2b(file.read(HEAD_BYTES), digest_size=16).hexdigest()
    return NightShard(id=shard.id, name=shard.name, size=shard.size, tag=shard.tag, head=head)


def _sha256(shard: Shard, options: StorageOptions) -> str:
    folder, name = split_url(shard.url)
    digest = hashlib.sha256()
    with open_storage(folder, options).open(name) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def labelled_shards(plan: NightPlan, commits: Sequence[Commit]) -> tuple[NightShard, ...]:
    """What of a night's plan is committed, as it was labelled: a shard may have been touched since it was planned."""
    by_name = {shard.name: shard for shard in plan.shards}
    return tuple(
        NightShard(
            id=commit.shard,
            name=commit.name,
            size=commit.size,
            tag=commit.tag,
            # Other bytes than were planned: their first ones were not looked at.
            head=by_name[commit.name].head if by_name[commit.name].size == commit.size else "",
            sha256=commit.sha256,
        )
        for commit in commits
        if commit.name in by_name
    )
