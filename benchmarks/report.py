"""The page of a large run: CPU seconds, memory and bytes.

python -m benchmarks.report --images 100000 --regions-per-image 10
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from pipelines.report.run_page import run_page
from pipelines.report.run_report import ReportConfig, gather
from pipelines.storage import StorageOptions, open_storage
from tests.pipelines.report.made_run import write_made_run


def measure(out: Path) -> str:
    """One line about the page of a run."""
    before, started = _peak_mib(), time.process_time()
    report = gather(open_storage(str(out)), ReportConfig(), StorageOptions())
    page = run_page(report).encode()
    seconds = time.process_time() - started
    return (
        f"{report.counts.num_regions:,} regions of {report.facts.totals['read']:,} images: {seconds:.1f} CPU-seconds,"
        f" peak {_peak_mib():.0f} MiB ({before:.0f} before), {len(page) / 1e6:.2f} MB, {len(report.gallery.images)}"
        f" pictures of {len(report.gallery.categories)} classes"
    )


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--regions-per-image", type=int, default=10)
    parser.add_argument("--images-per-shard", type=int, default=2000)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="Keep the run here, and use it again.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.folder or Path(temporary) / "run"
        if not (out / "run.json").exists():
            write_made_run(
                out,
                num_shards=arguments.images // arguments.images_per_shard,
                images_per_shard=arguments.images_per_shard,
                regions_per_image=arguments.regions_per_image,
                num_classes=arguments.classes,
            )
            print(f"written to {out}: measure in a fresh process with --folder" if arguments.folder else "")
        print(measure(out))


if __name__ == "__main__":
    main()
