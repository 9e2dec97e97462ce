"""Mined negatives: for every region, or image, the nearest ones of other classes in the whole corpus.

embeddings (Parquet) -> a task for every block of queries: stream all blocks, keep the k nearest -> part

Every task holds one block of queries and one block of the corpus, whatever the corpus' size, and its part has the same
bytes however blocks are cut (`ovsops.negatives.mined`). A part is written whole under its own name, so that a killed
run goes on with the parts that are missing. `mine_job` is the job around it.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ovsops.errors import ConfigError, OutputError
from ovsops.negatives.mined import NO_UID, Block, Confusions, Nearest, PairRules, many_hot, whole_vectors
from ovsops.text.vocabulary import Vocabulary
from pipelines.labelled_shards import LabelRun, read_committed
from pipelines.parts import table_to_parquet
from pipelines.runner import Engine, Placement, Step
from pipelines.stage import Stage
from pipelines.storage import Storage, StorageOptions, open_storage

logger = logging.getLogger(__name__)

Kind = Literal["region", "image"]
"""Of what the nearest are looked for."""

EMBEDDED = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("category_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
    ]
)
"""What is mined: `group` is the image's uid, `vector` of unit length. A region has one category, an image those of all
its regions."""
MINED = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("uid", pa.string(), nullable=False),
        pa.field("other_uid", pa.string()),
        pa.field("category_id", pa.int32(), nullable=False),
        pa.field("other_category_id", pa.int32(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
    ]
)
"""Pairs. `kind` is region, image or exclusive. `score` is the cosine; of `exclusive` pairs the loser's score, and
`other_uid` is null, as the loser was no region. `category_id` of an image is the first of its categories."""
CONFUSIONS = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("category_id", pa.int32(), nullable=False),
        pa.field("other_category_id", pa.int32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("mean_score", pa.float64(), nullable=False),
    ]
)
"""How often things of one category have neighbours of another among their nearest (`exclusive`: lost to it in a group);
of each kind the most frequent first."""

TASK = pa.schema([pa.field("first", pa.int64(), nullable=False), pa.field("end", pa.int64(), nullable=False)])
"""Queries of a part, by their place in the corpus."""
DONE = pa.schema(
    [pa.field("path", pa.string(), nullable=False), pa.field("pairs", pa.int64(), nullable=False)]
)
CONFUSIONS_FILE = "confusions.parquet"
EXCLUSIVE_FILE = "exclusive.parquet"
MINED_FOLDER = "mined"


@dataclass(frozen=True, kw_only=True)
class MiningConfig:
    """What is kept, and how much memory it may take."""

    k: int = 10
    """Nearest of each."""
    min_score: float = 0.0
    """Pairs of a smaller cosine are not written."""
    in_one_image: bool = False
    """Whether two regions of one image are a pair: their boxes may show the same pixels."""
    query_rows: int = 8192
    """Queries of a task: the corpus is read once for each."""
    block_rows: int = 2048
    """Rows of the corpus that are compared at a time. A task holds about 40 bytes x query_rows x block_rows: 0.7 GB."""

    def __post_init__(self) -> None:
        for name in ("k", "query_rows", "block_rows"):
            if getattr(self, name) < 1:
                raise ConfigError(f"mining.{name} is {getattr(self, name)}; it must be 1 or more")
        if not -1 <= self.min_score <= 1:
            raise ConfigError(f"mining.min_score is {self.min_score}; a cosine from -1 to 1 is wanted")


@dataclass(frozen=True, kw_only=True)
class EmbeddedFiles:
    """A corpus of embeddings: files in the order of their paths, rows in the order of the files."""

    url: str
    options: StorageOptions
    paths: tuple[str, ...]
    num_rows: tuple[int, ...]

    @classmethod
    def list(cls, url: str, options: StorageOptions) -> "EmbeddedFiles":
        """What is there. OutputError where there is nothing, or a file of another schema."""
        storage = open_storage(url, options)
        paths = [info.path for info in storage.list() if info.path.endswith(".parquet")]
        if not paths:
            raise OutputError(
                f"{storage.url} holds no Parquet file of embeddings; run the embedding job first"
            )
        counts = []
        for path in paths:
            with storage.open(path) as stream, pq.ParquetFile(stream) as table:
                missing = [name for name in EMBEDDED.names if name not in table.schema_arrow.names]
                if missing:
                    raise OutputError(
                        f"{storage.url}/{path} has no column {', '.join(missing)}: no embeddings; give their folder"
                    )
                counts.append(table.metadata.num_rows)
        return cls(url=url, options=options, paths=tuple(paths), num_rows=tuple(counts))

    @property
    def total(self) -> int:
        """Rows of all files."""
        return sum(self.num_rows)

    def tables(self, first: int, end: int, *, rows: int) -> Iterator[pa.Table]:
        """Rows `first` to `end` (half-open), at most so many at a time; memory holds a row group of one file."""
        storage = open_storage(self.url, self.options)
        start = 0
        for path, count in zip(self.paths, self.num_rows, strict=True):
            if start < end and first < start + count:
                with storage.open(path) as stream, pq.ParquetFile(stream) as file:
                    place = start
                    for batch in file.iter_batches(batch_size=rows, columns=EMBEDDED.names):
                        low, high = max(first - place, 0), min(end - place, batch.num_rows)
                        if low < high:
                            yield pa.Table.from_batches([batch.slice(low, high - low)])
                        place += batch.num_rows
            start += count


class MineStage(Stage):
    """Blocks of queries in, written parts out. Needs no model."""

    name = "mine"

    def __init__(
        self,
        files: EmbeddedFiles,
        output: str,
        config: MiningConfig,
        category_ids: Sequence[int],
        may_hold: Sequence[tuple[int, int]],
        *,
        kind: Kind = "region",
    ) -> None:
        self.files, self.output, self.config, self.kind = files, output, config, kind
        self.category_ids, self.may_hold = tuple(category_ids), tuple(may_hold)

    def setup(self) -> None:
        """Open the output."""
        self.storage = open_storage(self.output, self.files.options)
        self.places = {category: place for place, category in enumerate(self.category_ids)}
        count = len(self.category_ids)
        flags = np.zeros((count, count), bool)
        for one, other in self.may_hold:
            flags[one, other] = flags[other, one] = True
        self.rules = PairRules(may_hold=flags, in_one_group=self.config.in_one_image)

    def process(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One row of `DONE` a task."""
        for task in batch.to_pylist():
            table = self.mined(task["first"], task["end"])
            path = part_path(self.kind, task["first"], task["end"])
            self.storage.put(path, table_to_parquet(table))
            yield pa.table({"path": [path], "pairs": [table.num_rows]}, schema=DONE)

    def mined(self, first: int, end: int) -> pa.Table:
        """Pairs of some queries, in their order, nearest first."""
        queries = self._block(pa.concat_tables(self.files.tables(first, end, rows=self.config.query_rows)))
        nearest = Nearest.none_yet(queries, k=self.config.k)
        for table in self.files.tables(0, self.files.total, rows=self.config.block_rows):
            nearest = nearest.seen(self._block(table), self.rules)
        rows, ranks = np.nonzero((nearest.uids != NO_UID) & (nearest.scores >= self.config.min_score))
        ids = np.array(self.category_ids, np.int32)
        own = queries.classes.argmax(1)
        return pa.table(
            {
                "kind": pa.array([self.kind] * len(rows), pa.string()),
                "uid": pa.array(queries.uids[rows].tolist(), pa.string()),
                "other_uid": pa.array(nearest.uids[rows, ranks].tolist(), pa.string()),
                "category_id": ids[own[rows]],
                "other_category_id": ids[nearest.places[rows, ranks]],
                "score": nearest.scores[rows, ranks],
                "rank": ranks.astype(np.int32),
            },
            schema=MINED,
        )

    def _block(self, table: pa.Table) -> Block:
        where = f"{self.files.url}: rows of {table['uid'][0]}"
        vectors = table["vector"].combine_chunks()
        widths = pc.list_value_length(vectors).unique().to_pylist()
        if len(widths) != 1:
            raise OutputError(
                f"{where}: vectors of {sorted(map(str, widths))} numbers; embed all with one checkpoint"
            )
        flat = vectors.flatten().to_numpy(zero_copy_only=False)
        unknown = {each for row in table["category_ids"].to_pylist() for each in row} - self.places.keys()
        if unknown:
            raise OutputError(
                f"{where}: categories {sorted(unknown)[:5]} are not in the vocabulary; give the label run's own"
            )
        places = [[self.places[each] for each in row] for row in table["category_ids"].to_pylist()]
        if any(not row for row in places):
            raise OutputError(f"{where}: a row without a category; leave it out")
        return Block(
            uids=np.array(table["uid"].to_pylist()),
            groups=np.array(table["group"].to_pylist()),
            classes=many_hot(places, len(self.places)),
            vectors=whole_vectors(flat.reshape(table.num_rows, -1), where=where),
        )


@dataclass(frozen=True, kw_only=True)
class MinedParts:
    """What was mined of one kind."""

    rows: int
    paths: tuple[str, ...]
    """Parts, in the order of their queries."""
    before: int
    """Parts that an earlier start had written."""


def mine_files(
    files: EmbeddedFiles,
    storage: Storage,
    vocabulary: Vocabulary,
    config: MiningConfig,
    engine: Engine,
    *,
    kind: Kind = "region",
    mine_on: Placement | None = None,
) -> MinedParts:
    """Write the parts that are missing. Whoever calls holds the output's lock and has claimed it for these settings.

    Parts of another corpus go first: pairs of two corpora do not mix.
    """
    _claim_corpus(storage, files, kind)
    ranges = [
        (first, min(first + config.query_rows, files.total))
        for first in range(0, files.total, config.query_rows)
    ]
    paths = tuple(part_path(kind, *each) for each in ranges)
    there = {info.path for info in storage.list(f"{MINED_FOLDER}/{kind}")}
    left = [each for each, path in zip(ranges, paths, strict=True) if path not in there]
    logger.info("%s: %d rows, %d parts, %d to mine", kind, files.total, len(paths), len(left))
    if left:
        stage = MineStage(files, storage.url, config, vocabulary.ids, kin_places(vocabulary), kind=kind)
        tasks = [pa.table({"first": [a], "end": [b]}, schema=TASK) for a, b in left]
        step = Step(stages=(stage,), placement=mine_on or Placement(actors=0, num_cpus=1.0))
        for _ in engine.units(tasks, step):
            pass
    return MinedParts(rows=files.total, paths=paths, before=len(paths) - len(left))


def _claim_corpus(storage: Storage, files: EmbeddedFiles, kind: Kind) -> None:
    """Note what is mined. Where it is not what earlier parts were mined of (more shards, labels made anew), those are
    removed before the note changes, so that a start that dies here begins with the rest of them."""
    note = f"{MINED_FOLDER}/{kind}.json"
    source = open_storage(files.url, files.options)
    sizes = [source.info(path).size for path in files.paths]
    listed = [list(each) for each in zip(files.paths, files.num_rows, sizes, strict=True)]
    data = (json.dumps({"files": listed}, indent=1) + "\n").encode()
    if storage.exists(note) and storage.read(note) == data:
        return
    old = [info.path for info in storage.list(f"{MINED_FOLDER}/{kind}")]
    if old:
        logger.warning("%s: %d parts were mined of another corpus and are mined again", storage.url, len(old))
    for path in old:
        storage.delete(path)
    storage.put(note, data)


def part_path(kind: str, first: int, end: int) -> str:
    """Path of the pairs of some queries."""
    return f"{MINED_FOLDER}/{kind}/{first:012d}-{end:012d}.parquet"


def confusions_of(storage: Storage, paths: Iterable[str], kind: str) -> pa.Table:
    """`CONFUSIONS` of written pairs, one file after another."""
    found = Confusions()
    for path in paths:
        with storage.open(path) as stream:
            table = pq.read_table(stream, columns=["category_id", "other_category_id", "score"])
        found.add_pairs(*(table[name].to_numpy() for name in table.column_names))
    rows = [(kind, *row) for row in found.pairs()]
    return pa.table(
        {name: [row[column] for row in rows] for column, name in enumerate(CONFUSIONS.names)},
        schema=CONFUSIONS,
    )


def kin_places(vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """Places of classes and those that they are a kind of: true of one thing, so that they are no pair."""
    place = {spec.name: i for i, spec in enumerate(vocabulary.classes)}
    found = []
    for spec in vocabulary.classes:
        above, seen = spec.parent, {spec.name}
        while above and above not in seen:
            seen.add(above)
            found.append((place[spec.name], place[above]))
            above = vocabulary.by_name[above].parent
    return found


def mine_exclusive(labels: LabelRun, output: Storage) -> int:
    """Write the names that lost to a region's own in an exclusive group; how many there are.

    They are read off the label run's `rivals`: names that were found on the same thing with lower scores.
    """
    storage = open_storage(labels.url, labels.storage)
    tables = [MINED.empty_table()]
    for commit in labels.commits:
        rows = read_committed(
            storage, commit.tables["instances"], ["instance_uid", "category_id", "rivals"]
        ).to_pylist()
        pairs = [
            {
                "kind": "exclusive",
                "uid": row["instance_uid"],
                "other_uid": None,
                "category_id": row["category_id"],
                "other_category_id": rival["category_id"],
                "score": rival["score"],
                "rank": rank,
            }
            for row in rows
            for rank, rival in enumerate(
                sorted(row["rivals"], key=lambda each: (-each["score"], each["category_id"]))
            )
        ]
        tables.append(pa.Table.from_pylist(pairs, schema=MINED))
    table = pa.concat_tables(tables)
    output.put(EXCLUSIVE_FILE, table_to_parquet(table))
    return int(table.num_rows)
