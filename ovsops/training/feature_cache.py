"""Frozen features on disk: one safetensors file for each set of towers, scenes and grids."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ovsops.errors import CheckpointError
from ovsops.training.mapper_features import MapperFeatures, TextTable, grid_from_tensors
from ovsops.training.scenes import SceneBank

_VERSION = "mapper-features-1"


def features_key(bank: SceneBank, towers: Mapping[str, str], grids: Sequence[int]) -> str:
    """What features depend on: the towers' identities by role (`ResolvedCheckpoint.identity`), scenes, grids."""
    digest = hashlib.sha256(json.dumps([_VERSION, dict(sorted(towers.items())), sorted(set(grids))]).encode())
    for pixels in (bank.images, bank.instances, bank.semantic):
        digest.update(pixels.contiguous().numpy().tobytes())
    digest.update(json.dumps([[*key, *said] for key, said in sorted(bank.captions.items())]).encode())
    return digest.hexdigest()


def cached_features(folder: Path, key: str, compute: Callable[[], MapperFeatures]) -> MapperFeatures:
    """The features under `key` in `folder`, computed and written there when they are not."""
    path = folder / f"{key}.safetensors"
    if path.exists():
        return load_features(path)
    features = compute()
    save_features(features, path)
    return features


def save_features(features: MapperFeatures, path: Path) -> None:
    """Write one file, beside and renamed: a kill leaves none or a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {name: tensor.contiguous() for name, tensor in _named(features).items()}
    save_file(tensors, beside, metadata={"format": _VERSION})
    beside.replace(path)


def load_features(path: Path) -> MapperFeatures:
    """Read what `save_features` wrote."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"features {path}: cannot be read ({error}); delete the file, it is computed again"
        ) from error
    grids: dict[int, dict[str, Tensor]] = {}
    captions: dict[tuple[str, str], Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        kind, *rest = name.split(".")
        if kind == "grid":
            grids.setdefault(int(rest[0]), {})[rest[1]] = tensor
        elif kind == "caption":
            captions[rest[0], rest[1]] = tensor
        else:
            others[name] = tensor
    region_codes = others.pop("region_codes")
    return MapperFeatures(
        grids={side: grid_from_tensors(fields) for side, fields in sorted(grids.items())},
        texts=TextTable(captions=captions, **others),
        region_codes=region_codes,
    )


def _named(features: MapperFeatures) -> dict[str, torch.Tensor]:
    texts = features.texts
    named = {
        f"grid.{side}.{name}": tensor
        for side, of_grid in features.grids.items()
        for name, tensor in vars(of_grid).items()
        if tensor is not None
    }
    named |= {f"caption.{language}.{length}": tensor for (language, length), tensor in texts.captions.items()}
    named |= {name: tensor for name, tensor in vars(texts).items() if name != "captions"}
    return named | {"region_codes": features.region_codes}
