"""Text features on disk, so that a vocabulary is encoded once per checkpoint and not once per worker.

    FOLDER/<sha256 of what they were made from>.safetensors

A file carries its key and the digest of its arrays. One that does not match (cut short, flipped bits, another
key) is computed again, with a warning: a cache may be slow, never wrong.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ovsops.text.prompts import PromptTable

logger = logging.getLogger(__name__)

CACHE_VERSION = 1
"""Part of every key: raised when the same inputs begin to give other features."""

Arrays = dict[str, np.ndarray]


def text_features_key(table: PromptTable, checkpoint: str, options: Mapping[str, Any] | None = None) -> str:
    """sha256 over all that the features depend on: sentences and their classes, checkpoint, encoder options.

    `checkpoint` is the identity of the weights (repo@revision or sha256); `options` is plain JSON data.
    """
    identity = {
        "version": CACHE_VERSION,
        "prompts": table.to_mapping(),
        "checkpoint": checkpoint,
        "options": dict(options or {}),
    }
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class TextFeaturesCache:
    """Named arrays by key, in a folder that many processes may share."""

    folder: Path

    def get_or_compute(
        self,
        table: PromptTable,
        checkpoint: str,
        compute: Callable[[], Mapping[str, np.ndarray]],
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Arrays:
        """The arrays for this prompt table and checkpoint: from the folder, else computed and kept there."""
        key = text_features_key(table, checkpoint, options)
        if (cached := self.load(key)) is not None:
            return cached
        arrays = {name: np.ascontiguousarray(array) for name, array in compute().items()}
        self.store(key, arrays)
        return arrays

    def path(self, key: str) -> Path:
        """Where a key's arrays lie."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str) -> Arrays | None:
        """The arrays of a key; None when they are not there, or (with a warning) not to be trusted."""
        path = self.path(key)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("text features %s cannot be read (%s): computing them again", path, error)
            return None
        try:
            arrays: Arrays = load(data)
            metadata = _metadata(data)
        except (SafetensorError, ValueError) as error:
            logger.warning("text features %s are damaged (%s): computing them again", path, error)
            return None
        if metadata.get("key") != key or metadata.get("sha256") != _digest(arrays):
            logger.warning("text features %s do not match their digest: computing them again", path)
            return None
        return arrays

    def store(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write beside and rename. A folder that cannot be written costs time, not the run: a warning."""
        data = save(dict(arrays), metadata={"key": key, "sha256": _digest(arrays)})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.folder, prefix=f".{key[:16]}-", suffix=".tmp")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path(key))
            except OSError:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            logger.warning("text features cannot be kept in %s (%s): going on without", self.folder, error)


def _metadata(data: bytes) -> Mapping[str, str]:
    """The free part of a safetensors header: 8 bytes of length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    metadata: Mapping[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
