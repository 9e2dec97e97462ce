"""Which value of an attribute a region shows, and by how much: phrases against phrases. Axes: R regions, V values, D.

"red ball" competes with "blue ball", "black ball", ... and with "ball". Values of one base (red, light red, dark red)
do not: whether the region is any red is decided first, which red after that.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ovsops.regions.attributes import AttributeType, AttributeValue, AttributeVocabulary
from ovsops.regions.phrase_cache import PhraseCache


@dataclass(frozen=True, kw_only=True)
class AttributeRank:
    """The best value of one type for one region."""

    base: str
    """Name of the best value's base."""
    base_margin: float
    """Cosine of the best value above another base's best and the noun alone; under 0 where one of them is better."""
    runner_up: str
    """Name of the best value of another base; empty where the noun alone comes next."""
    shade: str
    """Name of the best value where it is a shade of its base, else empty."""
    shade_margin: float
    """Cosine of the shade above the others of its base; 0 without a shade."""


Ranks = dict[str, AttributeRank]
"""By type."""


def rank_attributes(
    features: Float[Tensor, "R D"],
    nouns: Sequence[str],
    asked: Sequence[Sequence[str]],
    *,
    language: str,
    vocabulary: AttributeVocabulary,
    encode: PhraseCache,
    with_bare: Collection[str],
) -> list[Ranks]:
    """The ranks of every region, for the types that are asked of it. Regions do not depend on each other.

    In the types `with_bare` the noun alone competes, too. In the others neither it does nor a value that goes without
    saying: for an encoder to which "ball" is near every ball.
    """
    places: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for place, (noun, types) in enumerate(zip(nouns, asked, strict=True)):
        places.setdefault((noun, tuple(types)), []).append(place)
    found: list[Ranks] = [{} for _ in nouns]
    for (noun, types), mine in places.items():
        for name in types:
            kind = vocabulary.type(name)
            values, has_bare = _competitors(kind, language, with_bare=name in with_bare)
            phrases = [value.phrase(noun, language) for value in values]
            if has_bare and noun not in phrases:
                phrases.append(noun)
            # float64: what is found of a region must not change with the number of its neighbours
            cosines = features[mine].double() @ encode(phrases).to(features.device).double().T
            for place, rank in zip(mine, _ranks(cosines, values), strict=True):
                found[place][name] = rank
    return found


def _competitors(
    kind: AttributeType, language: str, *, with_bare: bool
) -> tuple[tuple[AttributeValue, ...], bool]:
    """Values that compete, and whether the noun alone does; without another base there must be a rival still."""
    spoken = tuple(value for value in kind.values if value.words[language])
    if with_bare or len({value.family for value in spoken}) < 2:
        return kind.values, True
    return spoken, False


def _ranks(cosines: Float64[Tensor, "R V"], values: Sequence[AttributeValue]) -> list[AttributeRank]:
    """Columns are the values, and perhaps the noun alone behind them."""
    families = [value.family for value in values]
    names = [*families, ""][: cosines.shape[1]]
    is_value = torch.tensor([place < len(families) for place in range(len(names))], device=cosines.device)
    best = cosines.masked_fill(~is_value, -torch.inf).argmax(dim=1)
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    family = torch.tensor([codes[name] for name in names], device=cosines.device)
    is_own = family[best][:, None] == family[None]
    top = cosines.gather(1, best[:, None])
    others, runner_up = cosines.masked_fill(is_own, -torch.inf).max(dim=1)
    is_best = torch.arange(len(names), device=cosines.device)[None] == best[:, None]
    siblings = cosines.masked_fill(~is_own | is_best, -torch.inf).amax(dim=1)
    base_margins = (top[:, 0] - others).tolist()
    shade_margins = (top[:, 0] - siblings).tolist()
    found = []
    for row, (chosen, second) in enumerate(zip(best.tolist(), runner_up.tolist(), strict=True)):
        value = values[chosen]
        found.append(
            AttributeRank(
                base=value.family,
                base_margin=base_margins[row],
                runner_up=values[second].name if second < len(values) else "",
                shade=value.name if value.base else "",
                shade_margin=shade_margins[row] if value.base else 0.0,
            )
        )
    return found
