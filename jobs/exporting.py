"""What leaves an output: COCO files and overlay pictures. Everything needed is in `run.json` and the tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from jobs.label import recipe_of_output
from ovsops.text.vocabulary import Vocabulary
from pipelines.export import ExportReport, export_coco
from pipelines.report.overlay import write_overlays
from pipelines.shards import expand_inputs
from pipelines.storage import StorageOptions, open_storage


def export_coco_files(
    output: str,
    options: StorageOptions,
    *,
    out: Path,
    segmentation: Literal["rle", "polygon"],
    merged: bool,
    require_license: bool,
) -> list[str]:
    """Write COCO files; what was written and what could not be, one sentence a line."""
    report = export_coco(
        open_storage(output, options),
        out,
        segmentation=segmentation,
        merged=merged,
        require_license=require_license,
    )
    return list(_sentences(report, out, require_license=require_license))


def _sentences(report: ExportReport, out: Path, *, require_license: bool) -> Iterator[str]:
    where = str(report.files[0]) if len(report.files) == 1 else f"{len(report.files)} files in {out}"
    yield f"{report.images} images and {report.annotations} annotations in {where}"
    if report.images_failed or report.images_skipped:
        yield f"left out: {report.images_failed} failed and {report.images_skipped} skipped images"
    if report.images_without_license:
        what = "left out, with their annotations" if require_license else "written without one"
        yield f"{report.images_without_license} images have no licence: {what}"
    if report.polygons_changed:
        yield (
            f"{report.polygons_changed} masks are not filled exactly by their polygons (worst IoU"
            f" {report.polygons_min_iou:.4f}); --segmentation rle is exact"
        )
    if report.masks_without_polygon:
        yield f"{report.masks_without_polygon} masks have no polygon and stay RLE"
    if report.tables_ignored:
        yield f"{report.tables_ignored} table files belong to no commit and were not read"


def draw_overlays(output: str, options: StorageOptions, *, out: Path, limit: int) -> list[Path]:
    """Pictures of the first `limit` labelled images, from the inputs that the output's `run.json` names."""
    recipe = recipe_of_output(output, options).recipe
    names = {spec.id: spec.name for spec in Vocabulary.from_mapping(recipe.vocabulary).classes}
    return write_overlays(
        open_storage(output, options),
        expand_inputs(recipe.input.shards, recipe.storage),
        names,
        out,
        limit=limit,
        reader=recipe.input.reader,
        decode=recipe.decode,
        options=recipe.storage,
    )
