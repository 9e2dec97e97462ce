"""Features come back as they went, equal bytes for equal features, and other bytes are refused by name."""

import pytest
import torch

from ovsops.errors import CheckpointError
from ovsops.text.feature_bytes import features_from_bytes, features_to_bytes

TENSORS = {"rows": torch.randn(3, 4), "owner": torch.tensor([0, 2, 1])}
FIELDS = {"identity": "这些", "class_ids": [1, 7]}


def test_what_went_in_comes_out_and_bytes_are_equal() -> None:
    data = features_to_bytes("tiny-1", FIELDS, TENSORS)
    assert data == features_to_bytes("tiny-1", dict(reversed(FIELDS.items())), TENSORS)
    fields, tensors = features_from_bytes(data, "tiny-1", what="tiny features")
    assert fields == FIELDS
    assert tensors.keys() == TENSORS.keys()
    assert all((tensors[name] == TENSORS[name]).all() for name in TENSORS)


def test_other_bytes_are_refused() -> None:
    data = features_to_bytes("tiny-1", FIELDS, TENSORS)
    with pytest.raises(CheckpointError, match="tiny features: not bytes of"):
        features_from_bytes(data[:40], "tiny-1", what="tiny features")
    with pytest.raises(CheckpointError, match="tiny features: format 'tiny-1', tiny-2 is expected"):
        features_from_bytes(data, "tiny-2", what="tiny features")
