"""A student that copies a frozen vision model: its features, its attention, its patch relations.

Axes: B images, H W patch grid, P patches, D channels, N M heads, Q queries. The teacher gets no
gradient from any of them. Each is a mean over images, so it gathers nothing over ranks.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ovsops.errors import ShapeError
from ovsops.losses.precision import at_least_float32, cosines


def feature_distillation(
    student: Float[Tensor, "B H W D"],
    teacher: Float[Tensor, "B H W D"],
    *,
    kind: Literal["cosine", "mse"] = "cosine",
) -> Float[Tensor, ""]:
    """Mean over places of 1 - cosine, or the mean squared difference.

    Both stand on one grid and in one space: choose views that give the same grid, and put a learned
    projection after a student of another width. `mse` also copies the length of the teacher's tokens.
    """
    _check_not_empty(student, "feature")
    student, teacher = at_least_float32(student), at_least_float32(teacher.detach())
    if kind == "mse":
        return F.mse_loss(student, teacher)
    return (1 - F.cosine_similarity(student, teacher, dim=-1)).mean()


def attention_distillation(
    student_logits: Float[Tensor, "B N Q P"],
    teacher_logits: Float[Tensor, "B M Q P"],
    *,
    heads: Literal["each", "mean"] = "each",
    temperature: float = 1.0,
) -> Float[Tensor, ""]:
    """KL(teacher || student) of the attention over patches.

    The sum over patches, the mean over images, heads and queries. Both come as logits before any softmax
    (probabilities, softmaxed once more, are flat); Q is 1 for the row of the CLS token. `each` pairs head n
    with head n. `mean` compares the mean over heads of the distributions: for models with different numbers
    of heads, or heads whose order means nothing.
    """
    _check_not_empty(student_logits, "attention")
    log_student = (at_least_float32(student_logits) / temperature).log_softmax(dim=-1)
    log_teacher = (at_least_float32(teacher_logits.detach()) / temperature).log_softmax(dim=-1)
    if heads == "mean":
        log_student, log_teacher = _log_of_mean(log_student), _log_of_mean(log_teacher)
    elif log_student.shape[1] != log_teacher.shape[1]:
        raise ShapeError(
            f"attention distillation: the student has {log_student.shape[1]} heads, the teacher "
            f"{log_teacher.shape[1]}; "
            'no pairing is given, so compare their means with heads="mean"'
        )
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1).mean()


def relation_distillation(
    student: Float[Tensor, "B P D"], teacher: Float[Tensor, "B P E"]
) -> Float[Tensor, ""]:
    """Mean squared difference of the matrices of patch-to-patch cosines; the widths may differ."""
    _check_not_empty(student, "relation")
    return F.mse_loss(cosines(student, student), cosines(teacher, teacher).detach())


def _log_of_mean(log_probabilities: Float[Tensor, "B N Q P"]) -> Float[Tensor, "B 1 Q P"]:
    return log_probabilities.logsumexp(dim=1, keepdim=True) - math.log(log_probabilities.shape[1])


def _check_not_empty(tensor: torch.Tensor, name: str) -> None:
    if not tensor.numel():
        raise ShapeError(f"{name} distillation: {tuple(tensor.shape)} holds no value, so it has no mean")
