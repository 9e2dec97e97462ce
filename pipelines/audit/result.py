"""What the answers say of the run: shares with intervals, the verdict, and what to do next. Axes: N rows."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from ovsops.errors import ConfigError
from ovsops.metrics.audit import (
    Acceptance,
    AcceptanceConfig,
    Share,
    StratifiedShare,
    StratumCount,
    accept,
    clopper_pearson,
    design_weights,
    stratified_share,
)
from pipelines.audit.form import VERDICTS, Answer
from pipelines.audit.record import SampleRecord
from pipelines.counted import counted

RESULT_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class StratumResult:
    """One stratum, or one class."""

    name: str
    count: StratumCount
    share: Share


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """All that the answers say."""

    labels: int
    """Labels of the run."""
    drawn: int
    answered: int
    verdicts: Counter[str]
    overall: StratifiedShare
    strata: tuple[StratumResult, ...]
    classes: tuple[StratumResult, ...]
    """By class name; each class's own strata weighed as in the whole."""
    confusions: Counter[tuple[str, str]]
    """Class given and class that a person names."""
    acceptance: Acceptance
    config: AcceptanceConfig

    @property
    def judged(self) -> int:
        """Answers that count: all but the unsure ones."""
        return self.answered - self.verdicts["unsure"]

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "audit_result_version": RESULT_VERSION,
            "labels": self.labels,
            "drawn": self.drawn,
            "answered": self.answered,
            "judged": self.judged,
            "verdicts": {verdict: self.verdicts[verdict] for verdict in VERDICTS},
            "right": asdict(self.overall.interval()) | asdict(self.overall),
            "strata": [asdict(each) for each in self.strata],
            "classes": [asdict(each) for each in self.classes],
            "confusions": [
                {"labelled": a, "right_class": b, "rows": n} for (a, b), n in self.confusions.most_common()
            ],
            "acceptance": asdict(self.acceptance) | asdict(self.config),
            "next": list(next_steps(self)),
        }


def judge_answers(record: SampleRecord, answers: Sequence[Answer], config: AcceptanceConfig) -> AuditResult:
    """Put answers and sample together. Raises `ConfigError` where no answer counts."""
    decided = [answer for answer in answers if answer.verdict != "unsure"]
    if not decided:
        raise ConfigError(
            f"no row has a verdict that counts: fill the column `verdict` with {', '.join(VERDICTS)}"
        )
    judged: Counter[int] = Counter()
    right: Counter[int] = Counter()
    for answer in decided:
        stratum = record.rows[answer.instance_uid].stratum
        judged[stratum] += 1
        right[stratum] += answer.is_right
    counts = [
        StratumCount(size=size, judged=judged[place], right=right[place])
        for place, size in enumerate(record.sizes)
    ]
    overall = stratified_share(counts)
    return AuditResult(
        labels=sum(record.sizes),
        drawn=len(record.rows),
        answered=len(answers),
        verdicts=Counter(answer.verdict for answer in answers),
        overall=overall,
        strata=tuple(_exact(str(name), count) for name, count in zip(record.strata, counts, strict=True)),
        classes=tuple(_classes(record, counts)),
        confusions=Counter(
            (record.rows[answer.instance_uid].class_name, answer.right_class)
            for answer in decided
            if answer.right_class and not answer.is_right
        ),
        acceptance=accept(overall, config),
        config=config,
    )


def _exact(name: str, count: StratumCount) -> StratumResult:
    low, high = clopper_pearson(count.right, count.judged)
    value = count.right / count.judged if count.judged else float("nan")
    return StratumResult(name=name, count=count, share=Share(value=value, low=low, high=high))


def _classes(record: SampleRecord, counts: Sequence[StratumCount]) -> list[StratumResult]:
    groups: dict[str, list[StratumCount]] = {}
    for stratum, count in zip(record.strata, counts, strict=True):
        groups.setdefault(stratum.class_name, []).append(count)
    found = []
    for name, parts in groups.items():
        whole = StratumCount(
            size=sum(part.size for part in parts),
            judged=sum(part.judged for part in parts),
            right=sum(part.right for part in parts),
        )
        if whole.judged and len(parts) > 1:
            found.append(StratumResult(name=name, count=whole, share=stratified_share(parts).interval()))
        else:
            found.append(_exact(name, whole))
    return sorted(found, key=lambda each: (np.nan_to_num(each.share.value, nan=2.0), each.name))


def next_steps(result: AuditResult) -> tuple[str, ...]:
    """What a person does now, a sentence each."""
    acceptance, config = result.acceptance, result.config
    steps = []
    left = result.drawn - result.answered
    if left:
        steps.append(
            f"{left} of {counted(result.drawn, 'rows')} {'has' if left == 1 else 'have'} no verdict: finish"
            f" {'it' if left == 1 else 'them'}; if those left were the hard ones, the share seen is too good"
        )
    if result.overall.covered < 1:
        steps.append(
            f"strata with {1 - result.overall.covered:.1%} of the labels have no row that counts: the"
            " bounds take them for"
            " all wrong and all right"
        )
    if acceptance.decision == "undecided":
        if acceptance.rows_more is None:
            steps.append(
                "the share seen is the limit itself: more rows will hardly decide; choose another limit"
            )
        elif result.drawn + acceptance.rows_more > result.labels:
            steps.append(
                f"not decided, and the run's {counted(result.labels, 'labels are')} too few to decide it: the"
                " bounds are those of what makes the labels, of which a run is a sample;"
                " audit a larger run, or ask for less"
            )
        else:
            steps.append(
                f"not decided: with this share of right labels some {counted(acceptance.rows_more, 'rows')} more"
                f" would be; draw them with --rows {result.drawn + acceptance.rows_more}"
            )
    if acceptance.decision != "accepted":
        worst = [each for each in result.classes if each.count.judged and each.share.high < config.quality][
            :3
        ]
        for each in worst:
            steps.append(
                f"{each.name}: {each.count.right} of {each.count.judged} right; raise its threshold, mend"
                " its prompts, or"
                " send it to review"
            )
        for (labelled, right), count in result.confusions.most_common(2):
            steps.append(
                f"{labelled} was {right} {count} times: negative prompts or an exclusive group tell them apart"
            )
    if acceptance.decision == "accepted":
        steps.append("accepted: the answers can fit a calibrator, too (--calibrator FILE)")
    return tuple(steps)


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Answers as a calibrator takes them."""

    scores: Float64[np.ndarray, " N"]
    is_right: Bool[np.ndarray, " N"]
    category_ids: Int64[np.ndarray, " N"]
    weights: Float64[np.ndarray, " N"]
    """Labels of the run that each row stands for: strata were drawn from unequally."""


def outcomes_of(record: SampleRecord, answers: Sequence[Answer]) -> Outcomes:
    """Boxes that were judged. Raises `ConfigError` where there is none: calibrators are about scores of boxes."""
    decided = [answer for answer in answers if answer.verdict != "unsure"]
    judged = Counter(record.rows[answer.instance_uid].stratum for answer in decided)
    weights = design_weights(
        np.array(record.sizes, np.float64), np.array([judged[n] for n in range(len(record.sizes))])
    )
    boxes = [answer for answer in decided if record.rows[answer.instance_uid].is_box]
    if not boxes:
        raise ConfigError(
            "no judged label was found by a detector: calibrators are about scores of boxes, and this run has none"
        )
    rows = [record.rows[answer.instance_uid] for answer in boxes]
    return Outcomes(
        scores=np.array([row.score for row in rows], np.float64),
        is_right=np.array([answer.is_right for answer in boxes], bool),
        category_ids=np.array([row.category_id for row in rows], np.int64),
        weights=weights[[row.stratum for row in rows]],
    )
