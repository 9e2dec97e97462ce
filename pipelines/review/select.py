"""Choose labels for review, one after the other, the one of highest priority first. Axes: N candidates of a class, D.

    priority(j) = u_j * v_c * r_j

    u_j   doubt of the label (`uncertainty`)
    v_c   value of its class: factor_c * n_c ** -rarity, divided by the largest
    r_j   how many labels of its class it newly stands for: sum_i w_i * max(0, sim(i, j) - best_i), where best_i is the
          similarity of i to the closest label chosen before, sim = exp(-|d_i - d_j|^2 / (2 bandwidth^2)), and w_i the
          labels that i stands for; it counts itself

r is the gain of the facility-location function (Cornuejols, Fisher, Nemhauser, Management Science 23, 1977): it falls
as more is chosen, so that a label like one in the queue drops far down. Priorities can only fall, so the largest one
that is still true is the largest (Minoux' lazy greedy, 1978). Ties go to the smaller uid: equal runs, equal queues.
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from pipelines.codes import REASONS_CARRIED
from pipelines.counted import counted
from pipelines.review.config import ReviewConfig
from pipelines.review.pool import Candidate, Pool

_NEAR = 0.5
"""A candidate of at least this similarity is one that a label stands for, in words."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """One row of the queue."""

    candidate: Candidate
    class_name: str
    priority: float
    """When it was chosen."""
    class_value: float
    represents: int
    """Labels of its class that are much like it, itself included, as far as none before stands for them."""
    reasons: tuple[str, ...]


class _Class:
    """Candidates of one class and what is covered of them."""

    def __init__(self, candidates: Sequence[Candidate], value: float, bandwidth: float) -> None:
        self.candidates, self.value, self.bandwidth = candidates, value, bandwidth
        self.descriptors = np.stack([each.descriptor for each in candidates])  # N D
        self.weights = np.array([each.weight for each in candidates])
        self.best = np.zeros(len(candidates))

    def similarity(self, place: int) -> Float64[np.ndarray, " N"]:
        distances = ((self.descriptors - self.descriptors[place]) ** 2).sum(axis=1)
        return np.exp(-distances / (2 * self.bandwidth**2))

    def priority(self, place: int) -> float:
        gain = float((self.weights * np.clip(self.similarity(place) - self.best, 0, None)).sum())
        return self.candidates[place].doubt.value * self.value * gain

    def take(self, place: int) -> int:
        """Cover what `place` stands for; how many that newly are."""
        similarity = self.similarity(place)
        newly = (similarity >= _NEAR) & (self.best < _NEAR)
        self.best = np.maximum(self.best, similarity)
        return round(float(self.weights[newly].sum()))


def choose(pool: Pool, names: Mapping[int, str], config: ReviewConfig) -> list[Chosen]:
    """At most `budget` labels, and at most `max_per_image` of an image."""
    values = class_values(pool.counts, names, config)
    classes = {
        category: _Class(candidates, values[category], config.bandwidth)
        for category, candidates in pool.candidates.items()
        if values[category] > 0
    }
    queue = [
        (-each.priority(place), candidate.uid, category, place)
        for category, each in classes.items()
        for place, candidate in enumerate(each.candidates)
    ]
    heapq.heapify(queue)
    per_image: Counter[str] = Counter()
    chosen: list[Chosen] = []
    while queue and len(chosen) < config.budget:
        _, uid, category, place = heapq.heappop(queue)
        each = classes[category]
        candidate = each.candidates[place]
        image = candidate.row["image_uid"]
        if per_image[image] >= config.max_per_image:
            continue
        now = -each.priority(place)
        if queue and (now, uid) > queue[0][:2]:
            heapq.heappush(queue, (now, uid, category, place))
            continue
        per_image[image] += 1
        represents = each.take(place)
        chosen.append(
            Chosen(
                candidate=candidate,
                class_name=names.get(category, str(category)),
                priority=-now,
                class_value=each.value,
                represents=represents,
                reasons=_reasons(candidate, represents, pool.counts, category),
            )
        )
    return chosen


def class_values(
    counts: Mapping[int, int], names: Mapping[int, str], config: ReviewConfig
) -> dict[int, float]:
    """Value of each class, the largest 1."""
    values = {
        category: config.class_values.get(names.get(category, ""), 1.0) * count**-config.rarity
        for category, count in counts.items()
    }
    most = max(values.values(), default=0.0)
    return {category: value / most if most else 0.0 for category, value in values.items()}


def _reasons(
    candidate: Candidate, represents: int, counts: Mapping[int, int], category: int
) -> tuple[str, ...]:
    codes = [f"{code}: {REASONS_CARRIED.get(code, '').rstrip('.')}" for code in candidate.row["reason_codes"]]
    reasons = [*candidate.doubt.reasons, *codes]
    if represents > 1:
        reasons.append(f"stands for {represents - 1} more like it")
    mean = sum(counts.values()) / len(counts)
    if counts[category] < mean / 2:
        reasons.append(f"rare class ({counted(counts[category], 'labels')})")
    return tuple(reasons) or ("what is left is surer",)
