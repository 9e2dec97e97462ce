"""The card of a labelled run: what is in it, under which licences, how it was made, what it does not hold."""

from collections import Counter
from dataclasses import dataclass

import pyarrow as pa
import yaml

from pipelines.counted import counted
from pipelines.exporters.options import ExportContext
from pipelines.writers.markdown import most, plain, table

_MEANING = {
    "image": "the encoded image, with the bytes it came with",
    "image_uid": "its id, unique in the run",
    "shard": "the shard it came in",
    "key": "its name there",
    "sha256": "of the bytes",
    "width": "pixels, EXIF turn applied",
    "height": "pixels, EXIF turn applied",
    "exif_orientation": "1 is upright; boxes and masks lie in the turned picture",
    "license": "as it was stated with the image; null is unknown",
    "source_url": "as it was stated with the image",
    "attribution": "`field: text` of what was stated with the image",
    "caption_short": "short caption",
    "caption_long": "long caption",
    "verified_absent": "category ids that were looked for and are not there",
    "regions": "category id and name, box (x y width height, pixels), mask (COCO compressed RLE), scores, texts",
}
_LIMITS = (
    "Labels and captions were made by models, not by people; scores say how sure those were.",
    "Licences are those that were stated with the images. Nobody has checked them.",
    "A thing that has no region may still be in the image: absence of a region is not absence of the thing.",
)


@dataclass(frozen=True, kw_only=True)
class CardCounts:
    """What the card counts, image by image."""

    licenses: Counter[str]
    """Images by licence; "" is unknown."""
    categories: Counter[str]
    """Regions by class name."""


def label_card(context: ExportContext, counts: CardCounts, schema: pa.Schema) -> str:
    """README.md of the folder. Equal arguments give equal bytes."""
    report, vocabulary = context.report, context.vocabulary
    matter = {
        "pretty_name": vocabulary.name,
        "license": "other",
        "language": sorted(vocabulary.languages),
        "task_categories": ["object-detection", "image-segmentation"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/*.parquet"}]}],
    }
    licenses = Counter({name or "(unknown)": count for name, count in counts.licenses.items()})
    unknown = counts.licenses[""]
    categories = [
        (spec.id, spec.name, counts.categories[spec.name])
        for spec in sorted(vocabulary.classes, key=lambda spec: spec.id)
    ]
    lost = report.sentences()
    parts = [
        f"---\n{yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)}---\n",
        f"# {plain(vocabulary.name)}\n",
        f"{counted(report.images, 'images', f'{report.images:,}')} with"
        f" {counted(report.annotations, 'labelled regions', f'{report.annotations:,}')}.\n",
        '```python\nfrom datasets import load_dataset\n\ndata = load_dataset("PATH/OF/THIS/FOLDER")\n```\n',
        "## Features\n",
        table(("column", "meaning"), [(column.name, _MEANING[column.name]) for column in schema]),
        "## Licences\n",
        table(("licence, as stated", "images"), most(licenses)),
        (
            f"{unknown:,} of {report.images:,} images came without a licence: ask their owners before you use them.\n"
            if unknown
            else "Every image came with a licence. Each image is under its own.\n"
        ),
        "## Classes\n",
        table(("category id", "name", "regions"), [(str(i), name, count) for i, name, count in categories]),
        "## What was left out\n",
        "".join(f"- {plain(sentence)}\n" for sentence in lost) or "Nothing.\n",
        "## How it was made\n",
        f"Labelled by ovsops; hash of the recipe: `{context.recipe_hash}`.\n",
        "## Limits\n",
        "".join(f"- {sentence}\n" for sentence in _LIMITS),
    ]
    return "\n".join(parts)
