"""DINO's self-distillation between views of an image (arXiv:2104.14294), as SILC and SigLIP 2 use it.

Axes: S student views, T teacher views, B images, K prototypes.
"""

from jaxtyping import Float
from torch import Tensor

from ovsops.errors import ShapeError
from ovsops.losses.precision import at_least_float32

STUDENT_TEMPERATURE = 0.1


def self_distillation_loss(
    student_logits: Float[Tensor, "S B K"],
    teacher_targets: Float[Tensor, "T B K"],
    *,
    num_shared_views: int,
    temperature: float = STUDENT_TEMPERATURE,
) -> Float[Tensor, ""]:
    """Mean over pairs of a teacher and a student view, and over images, of -sum_k P_t log P_s.

    `teacher_targets` are distributions (`centring`); no gradient goes to them. The first `num_shared_views`
    views of student and teacher are the same pixels, and such a pair is skipped, since it would teach
    nothing: 2 for DINO (2 global views to both), 0 for SigLIP 2 (1 global view to the teacher, 8 local ones
    to the student).
    """
    num_student, num_teacher = len(student_logits), len(teacher_targets)
    num_pairs = num_student * num_teacher - num_shared_views
    if (
        not 0 <= num_shared_views <= min(num_student, num_teacher)
        or num_pairs == 0
        or student_logits.shape[1] == 0
    ):
        raise ShapeError(
            f"self-distillation: {num_student} student and {num_teacher} teacher views of {student_logits.shape[1]} "
            f"images, {num_shared_views} of them shared, leave no pair; give the student a view that the teacher does "
            "not have"
        )
    log_student = (at_least_float32(student_logits) / temperature).log_softmax(dim=-1)
    targets = at_least_float32(teacher_targets.detach())
    # Every teacher view against every student view is one product of sums over views.
    loss = -(targets.sum(dim=0) * log_student.sum(dim=0)).sum(dim=-1)  # B
    shared = -(targets[:num_shared_views] * log_student[:num_shared_views]).sum(dim=(0, 2))  # B
    return (loss - shared).mean() / num_pairs
