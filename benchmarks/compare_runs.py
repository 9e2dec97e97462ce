"""Time and memory of `ovsops diff` as runs grow: `python -m benchmarks.compare_runs RUN [--times 20 200]`.

RUN is a labelled run, such as the demo's. Its shards are written again and again under other names with other images,
into two runs of which the second has every score a little lower, so that no table is equal and every label is matched.
Each size is compared in a process of its own: CPU seconds and the peak of resident memory of that process, beside those
of one that only imports.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time

import pyarrow as pa
import pyarrow.compute as pc

from pipelines.ledger import Ledger
from pipelines.manifest import MANIFEST
from pipelines.parts import read_part, table_to_parquet
from pipelines.storage import open_storage


def multiply(source: Path, target: Path, times: int, *, lower: float) -> None:
    """Write `times` copies of every shard, each of other images; scores are `lower`."""
    old, new = open_storage(str(source)), open_storage(str(target))
    new.put(MANIFEST, old.read(MANIFEST))
    for commit in Ledger(old).read_all():
        parts = {kind: read_part(old, table["published"]) for kind, table in commit.tables.items()}
        for copy in range(times):
            shard, name = f"c{copy}-{commit.shard}", f"c{copy}-{commit.name}"
            tables = {}
            for kind, part in parts.items():
                data = table_to_parquet(renamed(part, copy, name, lower))
                path = f"{kind}/{shard}.parquet"
                new.put(path, data)
                digest = hashlib.sha256(data).hexdigest()
                tables[kind] = {
                    **commit.tables[kind], "published": path, "num_bytes": len(data), "sha256": digest
                }  # fmt: skip
            made = replace(commit, shard=shard, name=name, tables=tables, sha256=f"{copy}{commit.sha256}")
            new.create(made.path, made.to_bytes())


def renamed(table: pa.Table, copy: int, shard: str, lower: float) -> pa.Table:
    """The same rows of other images."""
    for column, digits in (("image_uid", 32), ("instance_uid", 32), ("sha256", 64)):
        if column in table.column_names:
            salted = [
                None if value is None else hashlib.sha256(f"{copy}{value}".encode()).hexdigest()[:digits]
                for value in table.column(column).to_pylist()
            ]
            place = table.schema.get_field_index(column)
            table = table.set_column(place, table.schema.field(place), pa.array(salted, pa.string()))
    if "shard" in table.column_names:
        place = table.schema.get_field_index("shard")
        table = table.set_column(
            place, table.schema.field(place), pa.array([shard] * len(table), pa.string())
        )
    if "score" in table.column_names:
        place = table.schema.get_field_index("score")
        scores = pc.multiply(table.column("score"), pa.scalar(1 - lower, pa.float32()))
        table = table.set_column(place, table.schema.field(place), scores)
    return table


def compare(first: str, second: str) -> None:
    """What the child does: JSON of CPU seconds, MiB and labels; without runs, of the imports alone."""
    from pipelines.diff.compare import diff_runs

    start = process_time()
    labels = 0
    if first:
        labels = diff_runs(open_storage(first), open_storage(second)).labels.matched
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": process_time() - start, "mebibytes": mebibytes, "labels": labels}))


def measured(first: str = "", second: str = "") -> dict[str, float]:
    words = [sys.executable, "-m", "benchmarks.compare_runs", "--child", first, second]
    return json.loads(
        subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--times", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        compare(*arguments.child)
        return
    if arguments.run is None:
        parser.error("name a labelled run, such as demo-out/run")
    print(f"imports alone: {measured()['mebibytes']:.0f} MiB")
    for times in arguments.times:
        with tempfile.TemporaryDirectory() as folder:
            runs = [Path(folder, side) for side in "ab"]
            for path, lower in zip(runs, (0.0, 0.01), strict=True):
                multiply(arguments.run, path, times, lower=lower)
            found = measured(*map(str, runs))
        print(
            f"{times} copies, {found['labels']:.0f} labels matched: {found['seconds']:.1f} CPU-s,"
            f" {found['mebibytes']:.0f} MiB peak"
        )


if __name__ == "__main__":
    main()
