"""WebDataset shards of a set: whole archives, an image and a sidecar a sample."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from ovsops.errors import StorageError
from pipelines.samples import Sample, SampleGrouper
from pipelines.tar import TarReader
from pipelines.training_sets.contract import Fault
from pipelines.validation.json_keys import KeysTwice

MAX_SIDECAR_BYTES = 8 * 2**20


@dataclass(frozen=True, kw_only=True)
class ShardSample:
    """One sample of a shard."""

    key: str
    faults: list[Fault]
    item: Any
    """The sidecar; None where there is none that can be read."""
    image: bytes | None


def shard_samples(stream: BinaryIO) -> Iterator[ShardSample]:
    """Samples in their order; the last one has an empty key and the faults of the archive itself."""
    grouper = SampleGrouper(max_sidecar_bytes=MAX_SIDECAR_BYTES)
    reader = TarReader(stream, wants=grouper.wants)
    try:
        for member in reader:
            yield from map(_parsed, grouper.add(member))
    except (StorageError, OSError) as error:
        yield ShardSample(key="", faults=[Fault("file", "", str(error)[:200])], item=None, image=None)
        return
    end = reader.end
    yield from map(_parsed, grouper.close(is_damaged=end is not None and not end.complete))
    faults = [
        Fault("sample", "", f"{count} members that belong to no sample: {name}")
        for name, count in sorted(grouper.ignored.items())
        if count
    ]
    if end is not None and not end.complete:
        faults.append(Fault("file", "", f"{end.damage_code}: {end.damage}"))
    if end is not None and end.ignored:
        faults.append(Fault("path_link", "", f"entries that are no files: {dict(end.ignored)}"))
    yield ShardSample(key="", faults=faults, item=None, image=None)


def _parsed(sample: Sample) -> ShardSample:
    faults = (
        [Fault("sample", "", f"{sample.error_code}: {sample.error_message}")] if sample.error_code else []
    )
    item = None
    for note in sample.notes:
        if note.startswith("E_SIDECAR"):
            faults.append(Fault("too_large" if "too_large" in note else "sample", "json", note))
    if sample.json is not None:
        keys = KeysTwice()
        try:
            item = json.loads(sample.json, object_pairs_hook=keys.object_of)
        except (ValueError, RecursionError) as error:
            faults.append(Fault("file", "json", f"no JSON: {str(error)[:100]}"))
        else:
            faults.extend(keys.faults())
    elif not sample.error_code:
        faults.append(Fault("sample", "json", "the image has no sidecar"))
    return ShardSample(key=sample.key, faults=faults, item=item, image=sample.image)
