"""From a config to a loaded segmenter, and from a vocabulary to its vectors.

The one place of segmenters that loads weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ovsops.backbones.checkpoint import Checkpoint, ResolvedCheckpoint, resolve
from ovsops.backbones.clip import ClipText
from ovsops.backbones.dinov2 import Dinov2
from ovsops.backbones.long_prompts import warn_of_long_prompts
from ovsops.backbones.siglip2 import SiglipText, load_siglip_vision
from ovsops.errors import CheckpointError, ConfigError
from ovsops.mapper.alignment import unit
from ovsops.mapper.model import MAPPER_FILE, load_mapper
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.segmenter import FusedSegmenter, Segmenter
from ovsops.segmenters.text_features import ClassTextFeatures
from ovsops.text.cache import TextFeaturesCache, text_features_key
from ovsops.text.ensemble import ClassVectors, Normalise, ensemble_prompts
from ovsops.text.prompts import PromptTable, class_prompts
from ovsops.text.vocabulary import Vocabulary

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def build_segmenter(
    config: SegmenterConfig,
    vocabulary: Vocabulary,
    text: ClassTextFeatures,
    *,
    device: str = "cpu",
    dtype: str = "auto",
) -> Segmenter:
    """Load the vision towers and check that they, the vocabulary and its vectors belong together.

    `auto` is bfloat16 on CUDA and float32 elsewhere: on CPUs without bfloat16 units it runs a hundred times
    slower.
    """
    if text.class_ids != vocabulary.ids:
        raise ConfigError(
            f"vocabulary {vocabulary.name}: its ids are not those of the text features; compute them again"
        )
    number = tensor_dtype(dtype, device=device)
    dino = Dinov2(resolve(config.dino), device=device, dtype=number)
    _check_width("mapper", text.mapped.shape[1], "DINO", dino.width)
    siglip = None
    if config.uses_siglip_vision:
        assert config.siglip is not None, "checked by SegmenterConfig"
        if text.aligned is None:
            raise ConfigError(
                "text features have no SigLIP vectors, alpha < 1 needs them; compute them again"
            )
        siglip = load_siglip_vision(resolve(config.siglip), device=device, dtype=number)
        _check_width("SigLIP text", text.aligned.shape[1], "SigLIP vision", siglip.width)
    return FusedSegmenter(config, text, dino, siglip, device=device)


def compute_text_features(
    config: SegmenterConfig,
    vocabulary: Vocabulary,
    languages: Sequence[str],
    *,
    device: str = "cpu",
    dtype: str = "auto",
    cache_dir: Path | None = None,
) -> ClassTextFeatures:
    """Vectors of every class, background prompt and negative prompt: once per (prompts, checkpoints),
    cached on disk.
    """
    table = class_prompts(vocabulary, tuple(languages))
    number = tensor_dtype(dtype, device=device)
    places = _text_checkpoints(config)
    made_from = json.dumps({role: place.identity for role, place in places.items()}, sort_keys=True)
    for role, place in places.items():
        if role != "mapper":
            warn_of_long_prompts(place, table.sentences)
    options = {"normalize_prompts": config.normalize_prompts, "dtype": str(number)}

    def compute() -> dict[str, np.ndarray]:
        return _text_arrays(config, table, places, device=device, dtype=number)

    if cache_dir is None:
        arrays = compute()
    else:
        arrays = TextFeaturesCache(cache_dir).get_or_compute(table, made_from, compute, options=options)
    aligned = arrays.get("aligned")
    return ClassTextFeatures(
        class_ids=vocabulary.ids,
        num_background=len(table.of_role("background")),
        negative_owner=torch.from_numpy(arrays["negative_owner"]),
        mapped=torch.from_numpy(arrays["mapped"]),
        aligned=None if aligned is None else torch.from_numpy(aligned),
        identity=f"{made_from} key:{text_features_key(table, made_from, options)}",
    )


def _text_checkpoints(config: SegmenterConfig) -> dict[str, ResolvedCheckpoint]:
    """The checkpoints that a class's vectors depend on: the tower that feeds the mapper, the mapper, SigLIP
    where it takes part.
    """
    places = {"mapper": resolve(mapper_file(config.mapper))}
    if config.clip is not None:
        places["clip"] = resolve(config.clip)
    if config.siglip is not None and (config.clip is None or config.uses_siglip_vision):
        places["siglip"] = resolve(config.siglip)
    return places


def _text_arrays(
    config: SegmenterConfig,
    table: PromptTable,
    places: Mapping[str, ResolvedCheckpoint],
    *,
    device: str,
    dtype: torch.dtype,
) -> dict[str, np.ndarray]:
    mapper = load_mapper(places["mapper"].path).to(device)
    normalise: Normalise = "each" if config.normalize_prompts else "none"
    vectors = {}
    for role, tower in (("clip", ClipText), ("siglip", SiglipText)):
        if role in places:
            encoder = tower(places[role], device=device, dtype=dtype)
            embeddings = encoder.encode(table.sentences).embeddings
            vectors[role] = ensemble_prompts(embeddings, table, normalise)
            del encoder
    feeding = vectors["clip"] if "clip" in vectors else vectors["siglip"]
    _check_width("text tower", feeding.classes.shape[1], "mapper", mapper.text_width)
    arrays = {
        "negative_owner": feeding.negative_of,
        "mapped": unit(mapper(_rows(feeding)), eps=1e-6),
    }
    if config.uses_siglip_vision:
        arrays["aligned"] = unit(_rows(vectors["siglip"]), eps=1e-6)
    return {name: tensor.cpu().numpy() for name, tensor in arrays.items()}


def _rows(vectors: ClassVectors) -> Float[Tensor, "R D"]:
    """In the order of `ClassTextFeatures`: classes, background, negatives."""
    return torch.cat([vectors.classes, vectors.background, vectors.negatives]).float()


def mapper_file(checkpoint: Checkpoint) -> Checkpoint:
    """The mapper's file in its folder, so that its identity is that of the file alone."""
    folder = Path(checkpoint.source).expanduser()
    if not folder.is_dir():
        return checkpoint
    return replace(checkpoint, source=str(folder / MAPPER_FILE))


def tensor_dtype(name: str, *, device: str) -> torch.dtype:
    """The torch dtype of a recipe's word for it."""
    if name == "auto":
        return torch.bfloat16 if device.startswith("cuda") else torch.float32
    if name not in _DTYPES:
        raise ConfigError(f"dtype {name!r} is not one of auto, {', '.join(_DTYPES)}")
    return _DTYPES[name]


def _check_width(one: str, one_width: int, other: str, other_width: int) -> None:
    if one_width != other_width:
        raise CheckpointError(
            f"{one} has {one_width} channels, {other} has {other_width}: "
            "these checkpoints were not made for each other"
        )
