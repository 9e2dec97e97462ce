"""Verbs about a finished or half finished output: `status`, `export`, `overlay`, `report`."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jobs.exits import ExitCode
from jobs.options import EndpointUrl, OutFolder, OutputUrl, storage_options


def status(
    output: OutputUrl,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    endpoint_url: EndpointUrl = None,
) -> int:
    """What is done, failed and why. Exit 1 if rows are missing or doubled."""
    import json

    from rich.console import Console

    from jobs.status import print_status, read_status
    from pipelines.manifest import UNIT_JOBS, job_of_manifest, read_manifest
    from pipelines.storage import open_storage

    if job_of_manifest(read_manifest(open_storage(output, storage_options(endpoint_url)))) in UNIT_JOBS:
        from jobs.unit_status import print_unit_status, read_unit_status  # loads torch, which takes seconds

        units = read_unit_status(output, storage_options(endpoint_url))
        if as_json:
            sys.stdout.write(json.dumps(units.to_plain(), indent=1, ensure_ascii=True) + "\n")
        else:
            print_unit_status(units, Console())
        return ExitCode.INTERNAL if units.broken else ExitCode.DONE
    found = read_status(output, storage_options(endpoint_url))
    if as_json:
        sys.stdout.write(json.dumps(found.to_plain(), indent=1, ensure_ascii=True) + "\n")
    else:
        print_status(found, Console())
    return ExitCode.INTERNAL if found.broken else ExitCode.DONE


def export(
    output: OutputUrl,
    out: OutFolder,
    to: Annotated[
        Literal["coco", "yolo-seg", "labelstudio", "cvat", "fiftyone", "webdataset", "hf"],
        typer.Option("--to", help="Format."),
    ] = "coco",
    segmentation: Annotated[
        Literal["rle", "polygon"], typer.Option(help="coco: how masks are written; rle is exact.")
    ] = "rle",
    merged: Annotated[
        bool, typer.Option("--merged/--per-shard", help="coco: one file, or one a shard.")
    ] = True,
    images: Annotated[
        Literal["copy", "reference"] | None,
        typer.Option(
            "--images", help="Copy the bytes, or name the inputs' files. Default: coco names, others copy."
        ),
    ] = None,
    image_prefix: Annotated[
        str, typer.Option("--image-prefix", help="labelstudio: goes before each image's path.")
    ] = "/data/local-files/?d=",
    require_license: Annotated[
        bool, typer.Option("--require-license", help="Leave out images without a licence.")
    ] = False,
    shards: Annotated[
        list[str],
        typer.Option("--shards", metavar="PATTERN", help="Where inputs are that were moved; may repeat."),
    ] = [],  # noqa: B006
    replace: Annotated[
        bool, typer.Option("--replace", help="Put it in the place of the export that --out holds.")
    ] = False,
    endpoint_url: EndpointUrl = None,
) -> int:
    """Write labels in another tool's format. What it cannot hold is counted, here and in export.json."""
    from jobs.ending import tell
    from jobs.exporting import export_files
    from pipelines.exporters.options import ExportOptions

    options = ExportOptions(
        format=to,
        images=images,
        require_license=require_license,
        replace=replace,
        segmentation=segmentation,
        merged=merged,
        image_prefix=image_prefix,
    )
    done = export_files(output, storage_options(endpoint_url), out, options, shards=shards)
    sys.stdout.write(f"{done.line}\n")
    for line in done.losses:
        tell(line, "loss")
    return done.code


def overlay(
    output: OutputUrl,
    out: OutFolder,
    limit: Annotated[int, typer.Option(min=1, help="Pictures at most.")] = 20,
    endpoint_url: EndpointUrl = None,
) -> int:
    """Draw masks, and boxes with name and score where a detector was, over labelled images, a PNG each."""
    from rich.console import Console

    from jobs.exporting import draw_overlays

    paths = draw_overlays(output, storage_options(endpoint_url), out=out, limit=limit)
    Console().print(f"{len(paths)} pictures in {out}", markup=False, highlight=False, soft_wrap=True)
    return 0


def report(
    output: OutputUrl,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="Page to write. Default: report.html in the run."),
    ] = None,
    beside: Annotated[
        list[Path],
        typer.Option("--beside", metavar="DIR", help="Output of another job about this run; may repeat."),
    ] = [],  # noqa: B006
    images: Annotated[int, typer.Option("--images", min=1, help="Pictures at most.")] = 160,
    seed: Annotated[int, typer.Option("--seed", help="Others show other pictures.")] = 0,
    max_mb: Annotated[float, typer.Option("--max-mb", min=0.5, help="Size of the page at most.")] = 15.0,
    endpoint_url: EndpointUrl = None,
) -> int:
    """One self-contained HTML page about a run: what was labelled, what failed, how good, what it cost, pictures."""
    from jobs.report import write_report
    from pipelines.report.counting import GalleryConfig
    from pipelines.report.run_report import ReportConfig

    config = ReportConfig(gallery=GalleryConfig(images=images, seed=seed), max_bytes=round(max_mb * 1e6))
    line = write_report(output, storage_options(endpoint_url), out=out, beside=beside, config=config)
    sys.stdout.write(line + "\n")
    return 0
