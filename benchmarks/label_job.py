"""The label job with a model that only waits: is the model kept busy, and what would simpler loops reach?

busy/span is the time inside model calls over the span from the first to the last one, as the run's own summary
has it; waited/span counts only the seconds that the model asked to wait, so that a call that was late to return
for want of a core is not called busy. img/s is over the span, then over everything from start to end.

python -m benchmarks.label_job [--seconds-per-batch 0.05] [--shards 48] [--images 128] [--repeats 3]
"""

import argparse
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch

from ovsops.images.decode import DecodeConfig, decode_image
from ovsops.masks.class_map import ClassMap
from ovsops.masks.regions import RegionConfig, class_map_to_regions
from pipelines.label import LabelJob, run_label
from pipelines.records import RegionClass
from pipelines.runner import Placement, RayConfig, RayEngine
from pipelines.schemas import SCHEMA_VERSION
from pipelines.shards import expand_inputs
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions
from tests.tiny.shards import encode, write_tar

BATCH = 16
CLASSES = tuple(RegionClass(id=i + 1, kind="thing", prompt=f"class {i}", language="en") for i in range(4))


@dataclass(frozen=True)
class WaitingModel:
    """Sleeps like a GPU call of fixed length, then answers with four rectangles per image."""

    seconds_per_batch: float

    def build(self) -> "WaitingModel":
        return self

    def segment(self, images: Sequence[np.ndarray]) -> list[ClassMap]:
        time.sleep(self.seconds_per_batch)
        return [rectangles(image.shape[0], image.shape[1]) for image in images]


def rectangles(height: int, width: int) -> ClassMap:
    labels = np.zeros((height, width), np.uint16)
    for i in range(4):
        labels[height // 8 : height // 2, i * width // 4 + 4 : (i + 1) * width // 4 - 4] = i + 1
    return ClassMap(labels=labels, scores=np.full((height, width), 0.75, np.float32))


def draw_shards(folder: Path, num_shards: int, images_per_shard: int) -> list[Path]:
    """JPEGs of 320x240 whose entropy is about a photograph's (some 20 kB at quality 85)."""
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(64):
        coarse = torch.from_numpy(rng.random((1, 3, 30, 40), np.float32))
        smooth = torch.nn.functional.interpolate(coarse, (240, 320), mode="bicubic").clamp(0, 1)[0]
        noise = rng.normal(0, 12, (240, 320, 3))
        pictures.append(
            encode(
                np.clip(smooth.permute(1, 2, 0).numpy() * 255 + noise, 0, 255).astype(np.uint8), quality=85
            )
        )
    return [
        write_tar(
            folder / f"{s:06d}.tar",
            [(f"{s:04d}{i:04d}.jpg", pictures[(s + i) % 64]) for i in range(images_per_shard)],
        )
        for s in range(num_shards)
    ]


def label_job(shards: Sequence[Path], out: Path, model: WaitingModel) -> dict[str, float]:
    """The real job on a private Ray."""
    options = StorageOptions()
    job = LabelJob(
        output=str(out),
        shards=tuple(expand_inputs([str(s) for s in shards], options)),
        annotator=model,
        segmenter_name="waiting",
        classes=CLASSES,
        manifest={"schema_version": SCHEMA_VERSION, "recipe": {}},
        batch=BatchConfig(max_images=BATCH, decode_workers=2),
        segment_on=Placement(actors=1, num_cpus=0.1),
        encode_on=Placement(actors=1, num_cpus=0.5, blocks_at_once=1),
    )
    started = time.perf_counter()
    with RayEngine(RayConfig(read_cpus=0.9), options) as engine:
        summary = run_label(job, engine, run="benchmark")
    wall = time.perf_counter() - started
    this = summary["this_run"]
    return {
        "wall": wall,
        "span": this["model_span_s"],
        "busy": this["model_busy_share"],
        "images": this["images"],
    }


def read_images(shards: Sequence[Path]) -> Iterator[bytes]:
    for shard in shards:
        with tarfile.open(shard) as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield file.read()


class Decoded(torch.utils.data.IterableDataset):
    """Batches of decoded images, the shards dealt out to DataLoader workers."""

    def __init__(self, shards: Sequence[Path]) -> None:
        self.shards = shards

    def __iter__(self) -> Iterator[list[np.ndarray]]:
        worker = torch.utils.data.get_worker_info()
        mine = self.shards[worker.id :: worker.num_workers] if worker else self.shards
        batch: list[np.ndarray] = []
        for data in read_images(mine):
            batch.append(decode_image(data, DecodeConfig()).pixels)
            if len(batch) == BATCH:
                yield batch
                batch = []
        if batch:
            yield batch


def simple_loop(shards: Sequence[Path], out: Path, model: WaitingModel, *, workers: int) -> dict[str, float]:
    """What one would write by hand: decode, model, regions, one Parquet file at the end."""
    started = time.perf_counter()
    loader = torch.utils.data.DataLoader(Decoded(shards), batch_size=None, num_workers=workers)
    rows, busy, first, images = [], 0.0, None, 0
    for batch in loader:
        before = time.perf_counter()
        first = first or before
        maps = model.segment(batch)
        last = time.perf_counter()
        busy += last - before
        images += len(batch)
        for class_map in maps:
            for region in class_map_to_regions(class_map, CLASSES, RegionConfig()):
                counts = region.rle.counts
                rows.append({"category_id": region.category_id, "counts": counts, "area": region.area})
    import pyarrow as pa

    out.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), out / "all.parquet")
    wall = time.perf_counter() - started
    span = last - (first or last)
    return {"wall": wall, "span": span, "busy": busy / span, "images": images}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds-per-batch", type=float, default=0.05)
    parser.add_argument("--shards", type=int, default=48)
    parser.add_argument("--images", type=int, default=128, help="images per shard")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only-job", action="store_true", help="leave the simple loops out")
    arguments = parser.parse_args()
    model = WaitingModel(arguments.seconds_per_batch)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        shards = draw_shards(root / "in", arguments.shards, arguments.images)
        candidates: dict[str, Callable[[Path], dict[str, Any]]] = {
            "label job": lambda out: label_job(shards, out, model)
        }
        if not arguments.only_job:
            candidates["plain loop"] = lambda out: simple_loop(shards, out, model, workers=0)
            candidates["DataLoader, 2 workers"] = lambda out: simple_loop(shards, out, model, workers=2)
        results: dict[str, list[dict[str, float]]] = {name: [] for name in candidates}
        for repeat in range(arguments.repeats):
            for number, (name, run) in enumerate(candidates.items()):
                results[name].append(run(root / f"out-{repeat}-{number}"))
    print(f"{arguments.shards} shards x {arguments.images} JPEGs 320x240", end=", ")
    print(f"model {arguments.seconds_per_batch} s per {BATCH}")
    print(f"{'':24} {'busy/span':>9} {'waited/span':>11} {'img/s':>8} {'img/s with start-up':>20}")
    for name, runs in results.items():
        median = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        waited = median["images"] / BATCH * arguments.seconds_per_batch / median["span"]
        rate, whole = median["images"] / median["span"], median["images"] / median["wall"]
        print(f"{name:24} {median['busy']:9.3f} {waited:11.3f} {rate:8.1f} {whole:20.1f}")


if __name__ == "__main__":
    main()
