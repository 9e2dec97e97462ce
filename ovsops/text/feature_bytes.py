"""Features of texts as bytes that travel: safetensors whose header says what they are."""

import json
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ovsops.errors import CheckpointError

_HEADER, _FORMAT = "header", "format"


def features_to_bytes(form: str, fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors and JSON fields of a format; the same ones give the same bytes.

    The header is a tensor of its own: safetensors writes its metadata in random order.
    """
    header = json.dumps({_FORMAT: form, **fields}, sort_keys=True).encode()
    stored = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save(stored | {_HEADER: torch.tensor(list(header), dtype=torch.uint8)})


def features_from_bytes(data: bytes, form: str, *, what: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Fields and tensors that `features_to_bytes` wrote. Raises `CheckpointError`, naming `what`, for other bytes and
    for another format.
    """
    try:
        tensors = load(data)
        header = json.loads(bytes(tensors.pop(_HEADER).tolist()))
    except (SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{what}: not bytes of its `to_bytes`: {error}") from error
    found = header.pop(_FORMAT, None)
    if found != form:
        raise CheckpointError(f"{what}: format {found!r}, {form} is expected; compute it again")
    return header, tensors
