"""How fast to learn at which step."""

import math


def warmup_cosine(step: int, *, num_steps: int, warmup_steps: int, final_share: float = 0.01) -> float:
    """Share of the peak rate at `step` (from 0): linear rise, then half a cosine down to `final_share`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * min(done, 1.0))) / 2
