"""A teacher that follows its student (mean teacher, arXiv:1703.01780)."""

import torch
from torch import nn

from ovsops.errors import ConfigError

TEACHER_MOMENTUM = 0.996
"""DINO's value at the start of its schedule. SILC keeps the momentum constant."""


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Parameters: teacher <- momentum * teacher + (1 - momentum) * student; buffers are copied.

    Buffers are constants or running averages already, of which the student's is the newest. The teacher keeps
    its own dtype and device.
    """
    if not 0 <= momentum <= 1:
        raise ConfigError(f"EMA momentum is {momentum}; expected 0 (a copy) to 1 (a fixed teacher)")
    for kind in ("named_parameters", "named_buffers"):
        of_teacher, of_student = dict(getattr(teacher, kind)()), dict(getattr(student, kind)())
        if odd := sorted(of_teacher.keys() ^ of_student.keys()):
            raise ConfigError(
                f"EMA: teacher and student differ in {kind[6:]} {odd[:3]}; build the teacher as a deep copy of the "
                "student, and pass the module inside DistributedDataParallel"
            )
        for name, target in of_teacher.items():
            source = of_student[name].to(target)
            if kind == "named_parameters":
                target.lerp_(source, 1 - momentum)
            else:
                target.copy_(source)
