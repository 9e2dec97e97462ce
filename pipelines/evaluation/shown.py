"""How an estimate is written in tables."""

import math
from collections.abc import Sequence

from pipelines.evaluation.figures import Estimate


def shown(estimate: Estimate, *, sign: bool = False) -> str:
    """`0.512 [0.480, 0.541]`; a dash where it is not defined."""
    if math.isnan(estimate.value):
        return "–"
    style = "+.3f" if sign else ".3f"
    return f"{estimate.value:{style}} [{estimate.low:{style}}, {estimate.high:{style}}]"


def shown_value(estimate: Estimate) -> str:
    """`0.512`; a dash where it is not defined."""
    return "–" if math.isnan(estimate.value) else f"{estimate.value:.3f}"


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of a table, the first one its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
