"""What is said of a region: a caption with its grounds. No model is needed to read it, so nothing heavy is imported."""

from dataclasses import dataclass

DETECTOR, FGCLIP2, FLORENCE2, GROUNDED = "detector", "fgclip2", "florence2", "+grounded"
"""Sources of captions; that of an endpoint is `vlm:NAME`; the last is added to those whose clauses were checked."""


@dataclass(frozen=True, kw_only=True)
class AttributeChoice:
    """What was found out about one attribute of one region."""

    type: str
    value: str
    """Name of the value, as the vocabulary stores it."""
    word: str
    """As the caption says it; empty for a value that goes without saying."""
    margin: float
    """Cosine above the best rival."""
    runner_up: str
    """The rival; empty for the noun alone."""


@dataclass(frozen=True, kw_only=True)
class RegionCaption:
    """What is said of a region, by whom, and on what grounds."""

    short: str
    long: str
    source: str
    """`detector`: the class name or phrase; `fgclip2`: with attributes; `florence2`, `vlm:NAME`: a captioner's words;
    `+grounded`: its clauses were checked."""
    attributes: tuple[AttributeChoice, ...] = ()
    """Accepted ones, those that go without saying too, in the order of the caption."""
    declined: tuple[str, ...] = ()
    """Types that were asked for and are not sure enough."""
    dropped: tuple[str, ...] = ()
    """Clauses that the region does not support."""
