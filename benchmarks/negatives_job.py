"""The negatives job over a label run of made captions: regions per CPU-second, memory, bytes. No picture is read.

python -m benchmarks.negatives_job [--regions 1000000] [--validators none texts] [--folder DIR]

The label run is written by the label job's own writer: shards of 1,000 images with ten regions each, captions as in
`benchmarks.negatives`, a class and a box each. The job runs inline, in a fresh process each time, over a quarter of the
shards and over all of them: the peak of both must be the same. With `texts` the validators of texts and of labels
look at twenty candidates a region. Exit 1 where memory grew by more than a tenth.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.negatives import made_captions
from ovsops.masks.rle import mask_to_rle
from ovsops.negatives.config import LEVELS, NegativeConfig
from ovsops.negatives.lexicon import LANGUAGES, Language
from ovsops.text.vocabulary import Vocabulary, load_vocabulary
from pipelines.labelled_shards import open_label_run
from pipelines.ledger import Commit, Ledger
from pipelines.manifest import MANIFEST
from pipelines.negatives import NegativesJob, negatives_units
from pipelines.negatives_checks import TextValidators
from pipelines.parts import seal_records
from pipelines.records import segmentation_record
from pipelines.rows import ENCODED_ROW, Closing
from pipelines.runner import InlineEngine, Step
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import Shard
from pipelines.storage import StorageOptions, open_storage
from pipelines.units import run_units

IMAGES_PER_SHARD, REGIONS_PER_IMAGE = 1000, 10
SIDE = 64
"""Pixels of an image that nobody draws."""
VOCABULARY = Path(__file__).parents[1] / "ovsops" / "text" / "data" / "coco_80.yaml"
MOST_GROWTH = 1.1


def write_labels(folder: Path, num_regions: int, language: Language) -> None:
    """What a label run leaves, shard by shard."""
    vocabulary = load_vocabulary(VOCABULARY)
    storage = open_storage(str(folder))
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "recipe": {"made": True},
        "recipe_hash": "made",
        "settings": {"job": "label"},
        "vocabulary": vocabulary.to_mapping(),
    }
    storage.put(MANIFEST, json.dumps(manifest).encode())
    ledger = Ledger(storage)
    per_shard = IMAGES_PER_SHARD * REGIONS_PER_IMAGE
    for number, first in enumerate(range(0, num_regions, per_shard)):
        shard = Shard(
            name=f"shard-{number:05d}.tar",
            slug=f"shard-{number:05d}",
            url=f"/nowhere/shard-{number:05d}.tar",
            size=1,
            tag="made",
            kind="tar",
        )
        regions = made_regions(language, min(per_shard, num_regions - first), vocabulary, seed=1000 + number)
        records = made_images(shard, regions)
        sealed = seal_records(
            storage,
            shard=shard.id,
            name=shard.name,
            records=records,
            closing=Closing(num_rows=len(records), complete=True, sha256="0" * 64, num_bytes=1),
            unique="made",
        )
        commit = Commit.of(sealed, shard, run="made", recipe_hash="made", seconds={})
        ledger.commit(commit)
        ledger.publish(commit)


def made_images(shard: Shard, regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Encoded rows, ten regions each."""
    records = []
    for index, first in enumerate(range(0, len(regions), REGIONS_PER_IMAGE)):
        record: dict[str, Any] = dict.fromkeys(ENCODED_ROW.names)
        record |= {
            "shard": shard.id,
            "index": index,
            "key": f"{index:06d}",
            "sha256": hashlib.sha256(f"{shard.id}/{index}".encode()).hexdigest(),
            "notes": [],
            "width": SIDE,
            "height": SIDE,
            "regions": list(regions[first : first + REGIONS_PER_IMAGE]),
        }
        records.append(record)
    return records


def made_regions(
    language: Language, count: int, vocabulary: Vocabulary, *, seed: int
) -> list[dict[str, Any]]:
    """Captions with a box anywhere, and the class that the caption names, where it names one."""
    generator = np.random.default_rng(seed)
    ids = {spec.name: spec.id for spec in vocabulary.classes}
    drawn = generator.choice(vocabulary.ids, size=(count, 2)).tolist()
    corners = generator.integers(0, SIDE // 2, size=(count, 2)).tolist()
    sizes = generator.integers(8, SIDE // 2, size=(count, 2)).tolist()
    mask = segmentation_record(mask_to_rle(np.ones((SIDE, SIDE), bool)))
    regions = []
    for i, caption in enumerate(made_captions(language, count, seed=seed)):
        own = ids.get(caption.split()[-1], drawn[i][0])
        regions.append(
            {
                "category_id": own,
                "prompt": vocabulary.by_id[own].name,
                "language": "en",
                "bbox": [float(value) for value in (*corners[i], *sizes[i])],
                "segmentation": mask,
                "area": SIDE * SIDE,
                "score": 0.5,
                "caption_short": caption,
                "rivals": [{"category_id": drawn[i][1], "score": 0.25}] if i % 3 == 0 else [],
                "decision": "accept",
                "reason_codes": [],
            }
        )
    return regions


class Clocked(InlineEngine):
    """Notes the CPU time at which the first unit begins and at which the last one is done."""

    began = ended = 0.0

    def units(self, tasks: Sequence[pa.Table], step: Step) -> Iterator[pa.Table]:
        self.began = time.process_time()
        yield from super().units(tasks, step)
        self.ended = time.process_time()


def measure(labels_url: str, num_shards: int, validators: str, level: str) -> dict[str, Any]:
    """One job in this process."""
    run = open_label_run(labels_url, StorageOptions())
    labels = replace(run, commits=run.commits[:num_shards])
    checks = TextValidators(
        texts=True, labels=True, only_exclusive=False, vocabulary=labels.manifest["vocabulary"]
    )
    with tempfile.TemporaryDirectory() as out:
        job = NegativesJob(
            output=out,
            units=negatives_units(labels),
            manifest={"schema_version": SCHEMA_VERSION, "recipe": {}, "recipe_hash": "made"},
            labels=labels,
            negatives=NegativeConfig(level=level),  # type: ignore[arg-type]
            validators=None if validators == "none" else checks,
        )
        engine = Clocked(StorageOptions())
        started = time.process_time()
        summary = run_units(job, engine, run="made")
        spent = time.process_time() - started
        files = [path for path in Path(out).rglob("*") if path.is_file()]
        num_bytes = sum(path.stat().st_size for path in files)
    return {
        "regions": summary["regions"]["read"],
        "with_negatives": summary["regions"]["with_negatives"],
        "invariant_holds": summary["regions"]["invariant_holds"],
        "cpu_seconds": spent,
        "before": engine.began - started,
        "units": engine.ended - engine.began,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bytes": num_bytes,
    }


def in_a_fresh_process(*words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.negatives_job", *words],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def said(validators: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    return (
        f"{validators:>10} {found['regions']:>10,} {found['regions'] / found['cpu_seconds']:>10.0f}"
        f" {found['regions'] / found['units']:>10.0f} {found['before']:>8.1f} {found['peak_mib']:>9.0f}"
        f" {found['bytes'] / 1e6:>8.1f} {found['with_negatives'] / found['regions']:>8.2%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--regions", type=int, default=1_000_000)
    parser.add_argument("--validators", nargs="+", choices=["none", "texts"], default=["none", "texts"])
    parser.add_argument("--level", choices=LEVELS, default="hard")
    parser.add_argument("--language", choices=LANGUAGES, default="en")
    parser.add_argument("--folder", type=Path, help="keep the label run here, and use it again")
    parser.add_argument("--only", type=int, help="measure so many shards of --folder in this process: JSON")
    options = parser.parse_args()
    if options.only:
        found = measure(str(options.folder), options.only, options.validators[0], options.level)
        print(json.dumps(found))
        return
    num_shards = -(-options.regions // (IMAGES_PER_SHARD * REGIONS_PER_IMAGE))
    grew = False
    with tempfile.TemporaryDirectory() as temporary:
        labels = options.folder or Path(temporary) / "labels"
        if not (labels / MANIFEST).exists():
            started = time.process_time()
            write_labels(labels, options.regions, options.language)
            seconds = time.process_time() - started
            print(f"labels: {num_shards} shards in {seconds:.0f} CPU-s", flush=True)
        print(
            f"{'validators':>10} {'regions':>10} {'a CPU-s':>10} {'of units':>10} {'before,s':>8} {'peak, MiB':>9}"
            f" {'MB':>8} {'with ten':>8}"
        )
        for validators in options.validators:
            words = ("--folder", str(labels), "--validators", validators, "--level", options.level)
            peaks = []
            for count in dict.fromkeys((max(1, num_shards // 4), num_shards)):
                found = in_a_fresh_process(*words, "--only", str(count))
                peaks.append(found["peak_mib"])
                print(said(validators, found), flush=True)
            grew = grew or peaks[-1] > MOST_GROWTH * peaks[0]
    sys.exit(1 if grew else 0)


if __name__ == "__main__":
    main()
