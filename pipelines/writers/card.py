"""The dataset card: what is in the set, under which licences, how it was made, and what it does not hold.
Every number is counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import yaml

from pipelines.counted import counted
from pipelines.training_sets.contract import NUM_NEGATIVES
from pipelines.training_sets.counts import UNKNOWN_LICENSE, SetCounts
from pipelines.training_sets.drops import REASONS, Drops
from pipelines.writers.finehard_parquet import WITH_IMAGES, with_sources
from pipelines.writers.markdown import most as _most
from pipelines.writers.markdown import one_line as _line
from pipelines.writers.markdown import table as _table

_MEANING = {
    "image": "the encoded image, with the bytes it came with",
    "image_uid": "its id, unique in the set",
    "key": "its name where it came from",
    "sha256": "of the bytes",
    "width": "pixels",
    "height": "pixels",
    "exif_orientation": "1 is upright",
    "language": "of all texts of the row: en or zh",
    "caption": "long caption, lower case",
    "short_caption": "short caption, lower case",
    "license": "as it was stated with the image; null is unknown",
    "source_url": "as it was stated with the image",
    "split": "train, val or test",
    "group": "images that are copies or look alike share it; a group lies in one split",
    "regions": "best first",
    "region_uid": "id of the region, that of the label job",
    "bbox": "x1 y1 x2 y2 in shares of width and height, 0 to 1",
    "score": "0 to 1",
    "category_id": "class id of the vocabulary",
    "category": "class name",
    "short_expr": "short expression of the region, lower case",
    "long_expr": "long expression; equal to the short one where none was made",
    "flag_short_neg": "1 where the region has negatives",
    "short_expr_negs": f"{NUM_NEGATIVES} expressions that are false for the region, or none",
    "neg_types": "what was changed in each negative",
    "neg_sources": "who wrote each negative: rule or llm, a language model",
    "neg_scores": "cosine of the region with each negative, where measured",
    "segmentation": "mask, COCO compressed RLE of the image's size",
}
_LIMITS = (
    "Labels, captions and negatives were made by models and rules, not by people; scores say how sure those were.",
    "A negative was made to be false for its region. A share of them is true all the same; measure it on a sample.",
    "Licences are those that were stated with the images. Nobody has checked them.",
    "Near duplicates are found by what the set's maker compared (see below); others may lie in two splits.",
    "A thing that has no region may still be in the image: absence of a region is not absence of the thing.",
)

_UNBALANCED = (
    "Negatives by rule are drawn so that the texts alone give nothing away. Those of a language model are not: run the"
    " blind test on the set before you train on it, or take those by rule alone."
)

_READ = {
    "hf": 'from datasets import load_dataset\n\ndata = load_dataset("PATH/OF/THIS/FOLDER")',
    "finehard-parquet": 'import pandas as pd\n\ndata = pd.read_parquet("PATH/OF/THIS/FOLDER/train")',
    "finehard-json": 'import glob, json\n\npaths = sorted(glob.glob("PATH/OF/THIS/FOLDER/train/*.json"))\n'
    "items = [item for path in paths for item in json.load(open(path))]",
    "webdataset": "import glob, webdataset\n\n"
    'data = webdataset.WebDataset(sorted(glob.glob("PATH/OF/THIS/FOLDER/train/*.tar")), shardshuffle=False)',
    "coco": "import glob\nfrom pycocotools.coco import COCO\n\nsets = [COCO(path) for path in sorted(glob.glob("
    '"PATH/OF/THIS/FOLDER/annotations/*.json"))]',
}
"""How a set of each format is read; run in `tests/pipelines/test_dataset_job.py`."""


def dataset_card(
    counts: SetCounts,
    drops: Drops,
    *,
    name: str,
    provenance: Mapping[str, Any],
    made: Sequence[str],
    format_name: str = "hf",
) -> str:
    """README.md of the set.

    `provenance` is what the set was made with (versions, checkpoints, hashes of recipes): plain values,
    printed as YAML. `made` says in sentences how, step by step. Equal arguments give equal bytes.
    """
    parts = [
        f"---\n{_front_matter(counts, name, has_data_folder=format_name == 'hf')}---\n",
        f"# {name}\n",
        f"{counted(counts.images, 'images', f'{counts.images:,}')} ({counts.image_bytes / 1e9:.2f} GB),"
        f" {counted(counts.regions, 'regions', f'{counts.regions:,}')},"
        f" {counts.regions_with_negatives:,} of them with {NUM_NEGATIVES} negatives,"
        f" {counts.regions_with_masks:,} with masks.\n",
        f"```python\n{_READ[format_name]}\n```\n",
        "## Features\n",
        _table(("column", "type", "meaning"), _features(has_sources=bool(counts.negative_sources))),
        "## Counts\n",
        _table(("split", "images"), counts.splits.items()),
        _table(("language", "images"), counts.languages.items()),
        "## Licences\n",
        _table(("licence, as stated", "images"), _most(counts.licenses)),
        _license_sentence(counts),
        "## Regions and negatives\n",
        _table(("class", "regions"), _most(counts.categories)),
        _table(("changed in the negative", "negatives"), _most(counts.negative_types)),
        *_sources(counts),
        "## How it was made\n",
        "".join(f"{number}. {_line(step)}\n" for number, step in enumerate(made, start=1)),
        "## What was left out, and why\n",
        _table(
            ("code", "count", "meaning"), [(code, n, REASONS[code]) for code, n in drops.to_plain().items()]
        ),
        "## Provenance\n",
        f"```yaml\n{yaml.safe_dump(dict(provenance), sort_keys=True, allow_unicode=True).replace('```', '` ` `')}```\n",
        "## Limits\n",
        "".join(f"- {sentence}\n" for sentence in _LIMITS),
    ]
    return "\n".join(parts)


def _front_matter(counts: SetCounts, name: str, *, has_data_folder: bool) -> str:
    splits = [split for split in ("train", "val", "test") if counts.splits[split]]
    files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in splits]
    matter: dict[str, Any] = {
        "pretty_name": name,
        "license": "other",
        "language": sorted(counts.languages),
        "task_categories": ["zero-shot-object-detection", "image-feature-extraction"],
    }
    if has_data_folder:
        matter["configs"] = [{"config_name": "default", "data_files": files}]
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def _features(*, has_sources: bool) -> list[tuple[str, str, str]]:
    schema = with_sources(WITH_IMAGES) if has_sources else WITH_IMAGES
    rows = [(column.name, _type(column.type), _MEANING[column.name]) for column in schema]
    region = schema.field("regions").type.value_type
    return rows + [
        (f"regions[].{column.name}", _type(column.type), _MEANING[column.name]) for column in region
    ]


def _sources(counts: SetCounts) -> list[str]:
    """Who wrote the negatives, where that is said."""
    if not counts.negative_sources:
        return []
    return [_table(("written by", "negatives"), _most(counts.negative_sources)), f"{_UNBALANCED}\n"]


def _type(dtype: pa.DataType) -> str:
    if pa.types.is_struct(dtype):
        return "object"
    if pa.types.is_fixed_size_list(dtype):
        return f"{_type(dtype.value_type)}[{dtype.list_size}]"
    if pa.types.is_list(dtype):
        return f"{_type(dtype.value_type)}[]"
    return "float32" if pa.types.is_float32(dtype) else str(dtype)


def _license_sentence(counts: SetCounts) -> str:
    unknown = counts.licenses[UNKNOWN_LICENSE]
    if not unknown:
        return "Every image came with a licence. Each image is under its own.\n"
    return f"{unknown:,} of {counts.images:,} images came without a licence: ask their owners before you use them.\n"
