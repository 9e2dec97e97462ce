"""Self-distillation of dense labels: a local crop should say of its patches what the whole view says there.

Instead of learned prototypes the classes are texts, the mapped captions of the batch: text holds them apart,
so nothing can collapse onto one and no centring is needed.
Axes: B images (or crops), C classes, H W grid of the global view, h w grid of the crop, D channels.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.losses.gather import Gather, no_gather
from ovsops.losses.precision import at_least_float32, cosines

TEMPERATURE = 0.07
"""Of the softmax over classes: the scale at which InfoNCE trains these cosines."""


def class_similarity(
    patch_tokens: Float[Tensor, "B H W D"],
    class_vectors: Float[Tensor, "C D"],
    *,
    gather: Gather = no_gather,
) -> Float[Tensor, "B _ H W"]:
    """Cosine of every patch with every class of all ranks (of one rank: C of them)."""
    similarity = cosines(patch_tokens.flatten(0, 2), gather(class_vectors))  # BHW C
    return similarity.unflatten(0, patch_tokens.shape[:3]).movedim(-1, 1)


def sample_at_crops(
    maps: Float[Tensor, "B C H W"], crops: Float[Tensor, "B 4"], grid_hw: tuple[int, int]
) -> Float[Tensor, "B C h w"]:
    """A global view's maps at the patch centres of its crop, bilinear.

    Within half a patch of the view's border the border's value is held. `crops` are x1, y1, x2, y2 as shares
    of the global view's width and height. x1 > x2 is a crop that was mirrored afterwards. A crop that leaves
    the view is an error: nothing was seen there.
    """
    if not ((crops >= 0) & (crops <= 1)).all():
        worst = int((crops - 0.5).abs().amax(dim=1).argmax())
        raise ShapeError(
            f"crop {worst} is {crops[worst].tolist()}, outside the global view; give x1, y1, x2, y2 as shares of that "
            "view (not of the image, not in pixels), between 0 and 1"
        )
    maps = at_least_float32(maps)
    crops = crops.to(maps.dtype)
    x, y = (
        crops[:, axis, None] + _centres(length, crops) * (crops[:, axis + 2] - crops[:, axis])[:, None]
        for axis, length in ((0, grid_hw[1]), (1, grid_hw[0]))
    )  # B w, B h
    places = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)  # B h w xy
    return F.grid_sample(maps, 2 * places - 1, mode="bilinear", padding_mode="border", align_corners=False)


def _centres(length: int, like: Tensor) -> Float[Tensor, "1 L"]:
    return ((torch.arange(length, device=like.device, dtype=like.dtype) + 0.5) / length)[None]


def class_distillation_loss(
    student_similarity: Float[Tensor, "B C h w"],
    teacher_similarity: Float[Tensor, "B C h w"],
    *,
    mask: Bool[Tensor, "B h w"] | None = None,
    temperature: float = TEMPERATURE,
    teacher_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """Mean over images of the mean over places of -sum_j P_t log P_s.

    P is the softmax over classes of similarity / temperature. With a mask, over the masked places only: those
    whose patch embeddings the student did not see; an image without any counts as 0. The teacher gets no
    gradient; its temperature is the student's unless it is given (lower sharpens the target). The least value
    is the teacher's entropy, reached where both say the same.
    """
    if not student_similarity.numel():
        raise ShapeError(
            f"class distillation: {tuple(student_similarity.shape)} holds no value, so it has no mean"
        )
    log_student = (at_least_float32(student_similarity) / temperature).log_softmax(dim=1)
    sharp = temperature if teacher_temperature is None else teacher_temperature
    target = (at_least_float32(teacher_similarity.detach()) / sharp).softmax(dim=1)
    losses = -(target * log_student).sum(dim=1).flatten(1)  # B hw
    if mask is None:
        return losses.mean()
    masked = mask.flatten(1)
    return (losses.where(masked, 0).sum(dim=1) / masked.sum(dim=1).clamp(min=1)).mean()
