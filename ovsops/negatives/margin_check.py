"""False for this region? FG-CLIP 2 compares the region with the negative and with its caption. Axes: D channels.

A negative is dropped where the region's cosine with it is more than a margin above that with the caption. Nothing
heavy is imported: the encoder comes in as a function.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from jaxtyping import Float

from ovsops.errors import ConfigError
from ovsops.negatives.candidates import CandidateNegatives, DropReason, RegionContext

EncodeTexts = Callable[[Sequence[str]], Float[np.ndarray, "T D"]]
"""Unit vectors of phrases for regions: `box` texts of FG-CLIP 2, in order."""
NEVER = 3.0
"""A margin that is never reached, as cosines differ by 2 at most."""


@dataclass(frozen=True, kw_only=True)
class MarginConfig:
    """How far a negative may be above the caption."""

    margin: float = 0.0
    """A difference of cosines. Below 0 a negative must stay at least so far under the caption. `fit_margins` finds it
    for an encoder; 0 asks only that the caption is nearer."""
    margins: Mapping[str, float] = field(default_factory=dict)
    """The same by type (`colour`), or by type and language (`colour.zh`), which counts before it: an encoder
    that cannot tell sizes must not judge them. 3 never drops."""
    keep_unseen: bool = False
    """Whether negatives of regions without a feature stay; else they are dropped, as nobody has looked."""

    def __post_init__(self) -> None:
        values = {"margin": self.margin} | {f"margins.{kind}": value for kind, value in self.margins.items()}
        for name, value in values.items():
            if not -2 <= value <= NEVER:
                raise ConfigError(
                    f"negatives: {name} is {value}; a difference of cosines from -2 to 2 is wanted, or 3 for never"
                )

    def of(self, kinds: str, language: str) -> float:
        """The margin of a negative. Of several types (`colour+material`) the highest: one word that is surely false is
        enough, so that the surest type decides."""
        return max(
            self.margins.get(f"{kind}.{language}", self.margins.get(kind, self.margin))
            for kind in kinds.split("+")
        )


class MarginValidator:
    """Drops negatives that FG-CLIP 2 takes for true."""

    def __init__(self, encode: EncodeTexts, config: MarginConfig | None = None) -> None:
        self.encode = encode
        self.config = config or MarginConfig()

    def validate(
        self, candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext]
    ) -> list[list[DropReason | None]]:
        """See `Validator`."""
        unseen = None if self.config.keep_unseen else "V_NO_FEATURE"
        return [
            [unseen] * len(each.texts)
            if gaps is None
            else [
                "V_MARGIN" if gap > self.config.of(kinds, each.language) else None
                for gap, kinds in zip(gaps.tolist(), each.types, strict=True)
            ]
            for each, gaps in zip(candidates, margins_of(candidates, contexts, self.encode), strict=True)
        ]


def margins_of(
    candidates: Sequence[CandidateNegatives], contexts: Sequence[RegionContext], encode: EncodeTexts
) -> list[Float[np.ndarray, " N"] | None]:
    """Of every region's negatives the cosine above that of its caption; None for a region without a feature.

    Every text of the batch is encoded once.
    """
    rows = [row for row, context in enumerate(contexts) if context.feature is not None]
    texts = list(
        dict.fromkeys(text for row in rows for text in (candidates[row].positive, *candidates[row].texts))
    )
    found: list[Float[np.ndarray, " N"] | None] = [None] * len(candidates)
    if not texts:
        return found
    features = np.asarray(encode(texts), np.float64)
    place = {text: i for i, text in enumerate(texts)}
    for row in rows:
        each, feature = candidates[row], contexts[row].feature
        if feature is None or not feature.any():  # FG-CLIP 2's word for a region that covers nothing
            continue
        cosines = features[[place[text] for text in (each.positive, *each.texts)]] @ feature.astype(
            np.float64
        )
        found[row] = cosines[1:] - cosines[0]
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class MarginSample:
    """A negative of which the truth is known."""

    kind: str
    """Its type, or type and language: what the margin is fitted for."""
    gap: float
    """Cosine above the caption's."""
    is_true: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedMargin:
    """A margin, and what it does on the samples that it was fitted on."""

    margin: float
    num_false: int
    false_alarms: float
    """Share of the false negatives that are dropped."""
    num_true: int
    recall: float
    """Share of the true ones that are dropped; nan where there were none."""


def fit_margins(
    samples: Iterable[MarginSample], *, max_false_alarms: float = 0.05, min_samples: int = 50
) -> dict[str, FittedMargin]:
    """By kind the lowest margin at which at most this share of the false negatives is dropped.

    Kinds with fewer than `min_samples` false negatives get no margin: `MarginConfig.margin` counts for them.
    """
    if not 0 <= max_false_alarms < 1 or min_samples < 1:
        raise ConfigError(
            f"max_false_alarms is {max_false_alarms}, min_samples {min_samples}: from 0 to below 1, and 1 or more"
            " are wanted"
        )
    by_kind: dict[str, list[MarginSample]] = {}
    for sample in samples:
        by_kind.setdefault(sample.kind, []).append(sample)
    fitted = {}
    for kind, some in sorted(by_kind.items()):
        lies = np.sort([each.gap for each in some if not each.is_true])
        truths = np.array([each.gap for each in some if each.is_true])
        if len(lies) < min_samples:
            continue
        most = math.floor(Fraction(max_false_alarms).limit_denominator(10**6) * len(lies))
        margin = float(lies[len(lies) - 1 - most])
        fitted[kind] = FittedMargin(
            margin=margin,
            num_false=len(lies),
            false_alarms=float((lies > margin).mean()),
            num_true=len(truths),
            recall=float((truths > margin).mean()) if len(truths) else float("nan"),
        )
    return fitted
