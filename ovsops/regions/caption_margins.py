"""How sure an attribute must be to be said: margins fitted on regions of known attributes. Axes: N regions.

Risk-controlled selection (Geifman and El-Yaniv, arXiv:1705.08500): of the regions with the largest margins as many are
said as an upper confidence bound on the share of wrong ones allows. The bound is Clopper and Pearson's, shared
among the cuts that are tried (Bonferroni).

Holds for regions like those of the fit. Does not say anything about one class or one colour among them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Float64
from scipy.stats import beta
from torch import Tensor

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.attribute_ranks import Ranks
from ovsops.regions.attributes import AttributeVocabulary
from ovsops.regions.caption_config import NEVER, CaptionConfig
from ovsops.regions.captions import RegionCaptioner

_NUM_CUTS = 20
"""Shares of the regions that are tried: 5 %, 10 %, ..., 100 %."""


@dataclass(frozen=True, kw_only=True)
class MarginTarget:
    """What is promised of said values."""

    max_wrong: float = 0.05
    """At most this share of the said values is wrong, ..."""
    confidence: float = 0.95
    """... with this chance over the draw of the tuning regions."""

    def __post_init__(self) -> None:
        if not 0 < self.max_wrong < 1 or not 0 < self.confidence < 1:
            raise ConfigError(f"{self}: both lie between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class MarginFit:
    """A margin, and what it does on the tuning regions."""

    margin: float
    """3 where no margin keeps the promise: the type is not said."""
    num_regions: int
    num_said: int
    num_wrong: int
    """Among those said."""
    with_bare: bool = True
    """Whether the noun alone was among the rivals."""


@dataclass(frozen=True, kw_only=True, eq=False)
class JudgedMargins:
    """Best values of one type with their margins, and whether truth agrees."""

    margins: Float64[np.ndarray, " N"]
    is_right: Bool[np.ndarray, " N"]


def fit_margin(
    judged: JudgedMargins, target: MarginTarget | None = None, *, num_families: int = 1
) -> MarginFit:
    """The smallest margin that keeps the promise. Values with a margin that is not over 0 are never said.

    `num_families` is how many such fits the caller chooses from: the confidence is shared among them.
    """
    target = target or MarginTarget()
    if np.isnan(judged.margins).any():
        raise ShapeError(
            "a margin is nan: regions without features are empty and have no margin; leave them out"
        )
    order = np.argsort(-judged.margins, kind="stable")
    margins, wrong = judged.margins[order], ~judged.is_right[order]
    num_positive = int((margins > 0).sum())
    error = (1 - target.confidence) / (_NUM_CUTS * num_families)
    best = MarginFit(margin=NEVER, num_regions=len(margins), num_said=0, num_wrong=0)
    for cut in range(1, _NUM_CUTS + 1):
        last = -(-len(margins) * cut // _NUM_CUTS)
        last = min(last, num_positive)
        if last == 0:
            break
        margin = float(margins[last - 1])
        num_said = int((margins >= margin).sum())  # equal margins are said together
        num_wrong = int(wrong[:num_said].sum())
        if _upper_bound(num_wrong, num_said, error) <= target.max_wrong:
            best = replace(best, margin=margin, num_said=num_said, num_wrong=num_wrong)
    return best


def judge_ranks(
    ranks: Iterable[Ranks],
    truths: Iterable[Mapping[str, str]],
    *,
    vocabulary: AttributeVocabulary,
    language: str,
) -> tuple[dict[str, JudgedMargins], dict[str, JudgedMargins]]:
    """Bases and shades of every type against the truth (name of the true value by type).

    A region whose truth does not name a type is left out of it. So are values that captions do not write: their
    mistakes are never said. A base is right where it is that of the true value, a shade where it is the true value.
    """
    families = {kind.name: {value.name: value.family for value in kind.values} for kind in vocabulary.types}
    silent = {
        kind.name: {v.name for v in kind.values if not (v.is_said and v.words[language])}
        for kind in vocabulary.types
    }
    bases: dict[str, list[tuple[float, bool]]] = {name: [] for name in vocabulary.names}
    shades: dict[str, list[tuple[float, bool]]] = {name: [] for name in vocabulary.names}
    for rank_by_type, truth in zip(ranks, truths, strict=True):
        for name, rank in rank_by_type.items():
            if name not in truth or rank.base in silent[name]:
                continue
            true = truth[name]
            bases[name].append((rank.base_margin, rank.base == families[name].get(true, true)))
            if rank.shade:
                shades[name].append((min(rank.base_margin, rank.shade_margin), rank.shade == true))
    return {n: _judged(p) for n, p in bases.items()}, {n: _judged(p) for n, p in shades.items()}


def fit_caption_margins(
    captioner: RegionCaptioner,
    features: Float[Tensor, "R D"],
    is_empty: Bool[Tensor, " R"],
    nouns: Sequence[str],
    truths: Sequence[Mapping[str, str]],
    *,
    language: str,
    target: MarginTarget | None = None,
) -> tuple[CaptionConfig, dict[str, MarginFit]]:
    """The captioner's config with margins of every type in this language, and the fit of each type's bases.

    `truths` name the true value of each type of each tuning region; report figures on other regions. Every type is
    fitted with the noun alone among the rivals and without it, and the one that says more is taken.
    """
    vocabulary, config = captioner.vocabulary, captioner.config
    chosen: dict[str, MarginFit] = {}
    shades: dict[str, MarginFit] = {}
    choices = (True, False) if config.bare_competes else (False,)
    for with_bare in choices:
        ranks = captioner.rank(features, is_empty, nouns, language=language, with_bare=with_bare)
        judged, judged_shades = judge_ranks(ranks, truths, vocabulary=vocabulary, language=language)
        for name, margins in judged.items():
            if not len(margins.margins):
                continue
            fit = replace(fit_margin(margins, target, num_families=len(choices)), with_bare=with_bare)
            if name in chosen and chosen[name].num_said >= fit.num_said:
                continue
            chosen[name] = fit
            shades.pop(name, None)
            if len(judged_shades[name].margins):
                shades[name] = fit_margin(judged_shades[name], target, num_families=len(choices))
    without = {
        f"{name}.{language}" for name, fit in chosen.items() if not fit.with_bare and config.bare_competes
    }
    fitted = replace(
        config,
        margins=_with(config.margins, chosen, language),
        shade_margins=_with(config.shade_margins, shades, language),
        without_bare=tuple(sorted({*config.without_bare, *without})),
    )
    return fitted, chosen


def _with(margins: Mapping[str, float], fits: Mapping[str, MarginFit], language: str) -> dict[str, float]:
    return {**margins, **{f"{name}.{language}": fit.margin for name, fit in fits.items()}}


def _judged(pairs: Sequence[tuple[float, bool]]) -> JudgedMargins:
    return JudgedMargins(
        margins=np.array([margin for margin, _ in pairs], np.float64),
        is_right=np.array([right for _, right in pairs], bool),
    )


def _upper_bound(num_wrong: int, num: int, error: float) -> float:
    """Clopper and Pearson's upper bound on a share, exceeded with chance `error` at most."""
    if num_wrong == num:
        return 1.0
    return float(beta.ppf(1 - error, num_wrong + 1, num - num_wrong))
