"""What the cosines of FG-CLIP 2 are used for: naming boxes, matching images and captions, finding the nearest.

Axes: B images, R regions, C classes, T texts, Q queries, G gallery, D channels. All vectors are unit length, or zero
for an empty region.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor

from ovsops.errors import ShapeError

CLASS_SCALE = 100.0
"""Factor of cosines before the softmax over classes in the published evaluations (360CVGroup/FG-CLIP, b1af1cd)."""
NO_CLASS = -1
"""The class of an empty region."""


@dataclass(frozen=True, kw_only=True)
class BoxClasses:
    """Which class a box shows."""

    classes: Int[Tensor, " R"]
    """Place of the class, the first of equal ones; `NO_CLASS` for an empty region."""
    probabilities: Float[Tensor, "R C"]
    """Softmax over all classes; uniform for an empty region."""


def classify_regions(
    regions: Float[Tensor, "R D"],
    class_texts: Float[Tensor, "C D"],
    *,
    is_empty: Bool[Tensor, " R"],
    scale: float = CLASS_SCALE,
) -> BoxClasses:
    """The class of each region among `box` texts. The softmax says which class, not whether any is there at all.

    No class at all is a ShapeError.
    """
    if not len(class_texts):
        raise ShapeError(f"{len(regions)} regions to be named by no class: give at least one text")
    probabilities = (regions.float() @ class_texts.float().T * scale).softmax(dim=1)
    return BoxClasses(
        classes=probabilities.argmax(dim=1).masked_fill(is_empty, NO_CLASS), probabilities=probabilities
    )


def image_text_probabilities(
    images: Float[Tensor, "B D"],
    texts: Float[Tensor, "T D"],
    *,
    logit_scale: float,
    logit_bias: float,
) -> Float[Tensor, "B T"]:
    """Whether a `short` or `long` text is of an image, each pair by itself: sigmoid(scale cos + bias)."""
    return (images.float() @ texts.float().T * logit_scale + logit_bias).sigmoid()


def retrieve(
    queries: Float[Tensor, "Q D"], gallery: Float[Tensor, "G D"], *, num_nearest: int
) -> tuple[Float[Tensor, "Q K"], Int[Tensor, "Q K"]]:
    """Cosines and places of the `num_nearest` nearest of the gallery (all of them where it has fewer), falling.

    Equal ones come in the order of the gallery.
    """
    if num_nearest < 1:
        raise ShapeError(f"the nearest {num_nearest} of {len(gallery)}: at least 1 is needed")
    cosines = queries.float() @ gallery.float().T
    order = cosines.argsort(dim=1, descending=True, stable=True)[:, :num_nearest]
    return cosines.gather(1, order), order
