"""The vectors of a vocabulary: computed once, stored as safetensors bytes, used by every worker.

Axes: R text rows, D_d DINO width, D_s SigLIP width. Rows stand in this order: one per class, one per
background prompt, one per negative prompt.
"""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.text.feature_bytes import features_from_bytes, features_to_bytes

_FORMAT = "class-text-features-1"


@dataclass(frozen=True, kw_only=True)
class ClassTextFeatures:
    """Unit vectors of a vocabulary's rows in both text spaces, and what they belong to."""

    class_ids: tuple[int, ...]
    """Vocabulary ids, in the vocabulary's order; label j of a class map is `class_ids[j - 1]`."""
    num_background: int
    """Background prompts; they compete for pixels and stand for label 0."""
    negative_owner: Int[Tensor, " G"]
    """For every negative row the place (from 0) of the class it speaks against."""
    mapped: Float[Tensor, "R D_d"]
    """Unit rows in DINO's space."""
    aligned: Float[Tensor, "R D_s"] | None
    """Unit rows in SigLIP's space; None where only DINO takes part."""
    identity: str
    """What they were computed from: text checkpoint, mapper, prompts. Goes into the manifest."""

    def __post_init__(self) -> None:
        rows = len(self.class_ids) + self.num_background + len(self.negative_owner)
        for name, vectors in (("mapped", self.mapped), ("aligned", self.aligned)):
            if vectors is not None and len(vectors) != rows:
                raise ShapeError(f"text features: {name} has {len(vectors)} rows, the vocabulary has {rows}")

    @property
    def num_classes(self) -> int:
        """Classes, background not counted."""
        return len(self.class_ids)

    @property
    def num_competing(self) -> int:
        """Classes and background prompts."""
        return self.num_classes + self.num_background

    def to_bytes(self) -> bytes:
        """Safetensors with a header; the same features give the same bytes."""
        tensors = {"mapped": self.mapped, "negative_owner": self.negative_owner}
        if self.aligned is not None:
            tensors["aligned"] = self.aligned
        fields = {
            "identity": self.identity,
            "class_ids": list(self.class_ids),
            "num_background": self.num_background,
        }
        return features_to_bytes(_FORMAT, fields, tensors)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ClassTextFeatures":
        """Read what `to_bytes` wrote."""
        fields, tensors = features_from_bytes(data, _FORMAT, what="text features")
        return cls(
            class_ids=tuple(fields["class_ids"]),
            num_background=fields["num_background"],
            negative_owner=tensors["negative_owner"],
            mapped=tensors["mapped"],
            aligned=tensors.get("aligned"),
            identity=fields["identity"],
        )

    def to(self, device: str) -> "ClassTextFeatures":
        """The same features on a device."""
        return ClassTextFeatures(
            class_ids=self.class_ids,
            num_background=self.num_background,
            negative_owner=self.negative_owner.to(device),
            mapped=self.mapped.to(device),
            aligned=None if self.aligned is None else self.aligned.to(device),
            identity=self.identity,
        )
