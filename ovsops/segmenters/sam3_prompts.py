"""The prompts of a vocabulary as SAM 3 reads them: encoded once, stored as bytes, used by every worker.

Axes: P prompts, L tokens of a prompt, D channels of the detector.
"""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.text.feature_bytes import features_from_bytes, features_to_bytes

_FORMAT = "sam3-text-features-1"


@dataclass(frozen=True, kw_only=True)
class Sam3TextFeatures:
    """Every token of every prompt, and which class a prompt speaks for."""

    class_ids: tuple[int, ...]
    """Vocabulary ids, in the vocabulary's order; label j of a class map is `class_ids[j - 1]`."""
    query_class: Int[Tensor, " P"]
    """Place of each prompt's class, from 1; 0 for a background prompt."""
    prompts: tuple[str, ...]
    """The phrases themselves."""
    tokens: Float[Tensor, "P L D"]
    attention_mask: Bool[Tensor, "P L"]
    """False for padding."""
    identity: str
    """What they were computed from: checkpoint and prompts. Goes into the manifest."""

    def __post_init__(self) -> None:
        if len(self.prompts) == 0:
            raise ShapeError("SAM 3 text features hold no prompt; a vocabulary has one a class or more")
        counts = {len(self.query_class), len(self.prompts), len(self.tokens), len(self.attention_mask)}
        if len(counts) != 1:
            raise ShapeError(
                f"SAM 3 text features: {len(self.prompts)} prompts, {len(self.query_class)} classes of prompts, "
                f"{len(self.tokens)} rows of tokens, {len(self.attention_mask)} masks; one of each a prompt is expected"
            )
        if int(self.query_class.min()) < 0 or int(self.query_class.max()) > len(self.class_ids):
            raise ShapeError(
                f"SAM 3 text features: classes of prompts run from {int(self.query_class.min())} to "
                f"{int(self.query_class.max())}; 0 (background) to {len(self.class_ids)} is expected"
            )

    @property
    def num_classes(self) -> int:
        """Classes, background not counted."""
        return len(self.class_ids)

    def to_bytes(self) -> bytes:
        """Safetensors with a header; the same features give the same bytes."""
        fields = {
            "identity": self.identity,
            "class_ids": list(self.class_ids),
            "prompts": list(self.prompts),
        }
        tensors = {
            "query_class": self.query_class,
            "tokens": self.tokens,
            "attention_mask": self.attention_mask,
        }
        return features_to_bytes(_FORMAT, fields, tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Sam3TextFeatures":
        """Read what `to_bytes` wrote."""
        fields, tensors = features_from_bytes(data, _FORMAT, what="SAM 3 text features")
        return cls(
            class_ids=tuple(fields["class_ids"]),
            query_class=tensors["query_class"],
            prompts=tuple(fields["prompts"]),
            tokens=tensors["tokens"],
            attention_mask=tensors["attention_mask"],
            identity=fields["identity"],
        )

    def to(self, device: str) -> "Sam3TextFeatures":
        """The same features on a device."""
        return replace(
            self,
            query_class=self.query_class.to(device),
            tokens=self.tokens.to(device),
            attention_mask=self.attention_mask.to(device),
        )
