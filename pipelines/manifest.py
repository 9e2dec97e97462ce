"""`run.json`: what a run was made with, and whether it may go on in an output that exists."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ovsops.errors import NoRunError, OutputError
from pipelines.storage import Storage

MANIFEST = "run.json"
NIGHTS = "nights"
"""Folder of a nightly output in which each night has its runs."""
UNIT_JOBS = ("negatives", "dataset", "mine")
"""Jobs over the committed shards of a label run."""


def read_manifest(storage: Storage) -> dict[str, Any]:
    """The manifest of an output, or NoRunError if the folder holds no run."""
    try:
        return json.loads(storage.read(MANIFEST))
    except FileNotFoundError:
        runs = sorted(path.removesuffix(f"/{MANIFEST}") for path in _runs_of_nights(storage))
    if runs:
        raise NoRunError(
            f"{storage.url} is the output of a nightly recipe, and its runs are below: give one of them, such as"
            f" {storage.url}/{runs[-1]}"
        )
    raise NoRunError(f"{storage.url} holds no {MANIFEST}: no run of ovsops wrote there; check the path")


def job_of_manifest(manifest: Mapping[str, Any]) -> str:
    """Which job wrote an output."""
    return str(manifest.get("settings", {}).get("job", "label"))


def _runs_of_nights(storage: Storage) -> Iterator[str]:
    """Manifests of label runs of a nightly output; none for any other folder."""
    for info in storage.list(NIGHTS):
        if info.path.count("/") == 3 and info.path.endswith(f"/label/{MANIFEST}"):
            yield info.path


def claim_output(
    storage: Storage, manifest: Mapping[str, Any], *, reasons: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Write the manifest, or check that the one that is there asks for the same labels.

    `manifest["schema_version"]` is that of the job's own output. `manifest["recipe"]` holds every field that can change
    a label; the rest (versions, devices) may differ. `reasons`
    tells of fields, by dotted path, why they may not change and what to do instead.
    """
    data = (json.dumps(manifest, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    if storage.create(MANIFEST, data):
        return dict(manifest)
    earlier = read_manifest(storage)
    if earlier["schema_version"] != manifest["schema_version"]:
        raise OutputError(
            f"{storage.url} was written with schema {earlier['schema_version']}, this version writes"
            f" {manifest['schema_version']}: choose another output"
        )
    changes = list(differences(earlier["recipe"], manifest["recipe"]))
    if changes:
        why = [
            text for path, text in (reasons or {}).items() if any(c.startswith(f"{path}:") for c in changes)
        ]
        raise OutputError(
            f"{storage.url} was made with another recipe; these fields differ: {'; '.join(changes[:20])}."
            f" Choose another output, or set the fields back{''.join(f'. {text}' for text in why)}"
        )
    return earlier


def differences(earlier: Any, now: Any, path: str = "") -> Iterator[str]:
    """`path: earlier -> now` for every leaf that differs."""
    if isinstance(earlier, Mapping) and isinstance(now, Mapping):
        for key in sorted({*earlier, *now}):
            yield from differences(earlier.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(earlier, list) and isinstance(now, list) and len(earlier) == len(now):
        for place, (a, b) in enumerate(zip(earlier, now, strict=True)):
            yield from differences(a, b, f"{path}[{place}]")
    elif earlier != now:
        yield f"{path}: {_short(earlier)} -> {_short(now)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
