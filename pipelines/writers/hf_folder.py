"""A folder that `datasets.load_dataset(FOLDER)` opens: Parquet with the images' own bytes in `data/`, and a card.

The features stand in the Parquet files under `datasets`' own metadata key, so that `image` decodes to a
picture and nothing is inferred.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.training_sets.record import Split
from pipelines.writers.finehard_parquet import WITH_IMAGES, ParquetRows, with_sources
from pipelines.writers.whole_files import DEFAULT_FILE_BYTES, SetWriter, file_pattern

FORMAT = "hf"


def hf_writer(
    folder: Path,
    split: Split,
    *,
    stem: str | None = None,
    max_file_bytes: int = DEFAULT_FILE_BYTES,
    has_sources: bool = False,
) -> SetWriter:
    """Files `data/SPLIT-STEM-00000.parquet`; `card.dataset_card` is the folder's README.md."""
    schema = hf_schema(with_sources(WITH_IMAGES) if has_sources else WITH_IMAGES)
    pattern = file_pattern("data/SPLIT-STEM-*.parquet", split, stem)
    return SetWriter(
        folder,
        pattern,
        lambda stream: ParquetRows(stream, schema),
        split=split,
        max_file_bytes=max_file_bytes,
    )


def hf_schema(schema: pa.Schema) -> pa.Schema:
    """The columns as `datasets` would write them, with its features under its own metadata key."""
    features = json.dumps({"info": {"features": hf_features(schema)}})
    columns = [pa.field(column.name, _nullable(column.type)) for column in schema]
    return pa.schema(columns, metadata={**(schema.metadata or {}), "huggingface": features})


def hf_features(schema: pa.Schema) -> dict[str, Any]:
    """The columns in the words of `datasets`."""
    return {
        column.name: {"_type": "Image"} if column.name == "image" else _feature(column.type)
        for column in schema
    }


def _nullable(dtype: pa.DataType) -> pa.DataType:
    """The type as `datasets` would write it: it takes features from a file only where every field may be null."""
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(column.name, _nullable(column.type)) for column in dtype])
    if pa.types.is_fixed_size_list(dtype):
        return pa.list_(_nullable(dtype.value_type), dtype.list_size)
    return pa.list_(_nullable(dtype.value_type)) if pa.types.is_list(dtype) else dtype


def _feature(dtype: pa.DataType) -> Any:
    if pa.types.is_struct(dtype):
        return {column.name: _feature(column.type) for column in dtype}
    if pa.types.is_fixed_size_list(dtype):
        return {"feature": _feature(dtype.value_type), "length": dtype.list_size, "_type": "List"}
    if pa.types.is_list(dtype):
        return {"feature": _feature(dtype.value_type), "_type": "List"}
    return {"dtype": {"float": "float32"}.get(str(dtype), str(dtype)), "_type": "Value"}
