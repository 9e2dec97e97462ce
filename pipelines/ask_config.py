"""Which regions an endpoint is asked about, what it is asked, and whose word checks its captions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.errors import ConfigError
from ovsops.regions.attributes import Words
from ovsops.regions.caption_config import GroundingConfig
from pipelines.endpoint_config import EndpointConfig
from pipelines.region_picture import PictureConfig

NOT_ASKED = "N_NOT_ASKED"
"""Note: regions that were wanted and are beyond `max_regions`."""
UNSUPPORTED = "N_UNSUPPORTED"
"""Note: captions of which no clause is supported; the region keeps the words it had, or its class name."""


@dataclass(frozen=True, kw_only=True)
class AskGroundConfig(GroundingConfig):
    """FG-CLIP 2 looks at the captions, in float32 on the device of the step, and drops the clauses it does not see."""

    fgclip2: Checkpoint
    """Who looks."""
    max_patches: int | None = None
    """Patches that an image is read at; None chooses 128 to 1024 by its size, as published."""
    words: Words = "photos"
    """The attribute words that clauses are compared by."""
    max_phrases: int = 20_000
    """Phrases whose features are kept between images; 3 kB each at 768 channels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_phrases < 1 or (self.max_patches is not None and self.max_patches < 1):
            raise ConfigError(
                f"ask.ground: max_phrases is {self.max_phrases}, max_patches {self.max_patches}; 1 or more are wanted"
            )


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """What a vision-language model is asked about regions that are found and cut out."""

    endpoint: EndpointConfig
    """Who is asked."""
    captions: bool = True
    """Ask for a short and a long caption; they replace those of others."""
    verify: bool = False
    """Ask whether the region is what it was found as; the answer replaces an earlier verdict."""
    which: Literal["all", "review", "undecided"] = "all"
    """`review`: regions that a code or verdict sends to a person; `undecided`: those without a verdict of yes or no."""
    max_regions: int = 32
    """Regions of one image that are asked about at most; those left out are counted in its notes (`N_NOT_ASKED:5`)."""
    first: Literal["largest", "least_sure"] = "largest"
    """Which come first where there are more: those with the largest masks, or with the lowest scores."""
    language: str | None = None
    """Language of the captions; null: the first of the recipe's languages."""
    picture: PictureConfig = field(default_factory=PictureConfig)
    """What is shown of a region: `view` is `crop`, or `box` for the whole picture with the region in a red box."""
    ground: AskGroundConfig | None = None
    """Who checks the captions; null believes them. Checked ones have `+grounded` behind their source."""
    stop_after: int = 512
    """This many questions in a row without an answer end the run: the endpoint is gone. What is committed stays."""

    def __post_init__(self) -> None:
        if not (self.captions or self.verify):
            raise ConfigError("ask: neither captions nor verify; ask for one of them, or leave `ask` out")
        if self.ground is not None and not self.captions:
            raise ConfigError("ask.ground checks captions, and none are asked for; set ask.captions")
        for name in ("max_regions", "stop_after"):
            if getattr(self, name) < 1:
                raise ConfigError(f"ask.{name} is {getattr(self, name)}; it must be 1 or more")
        if self.language is not None and not (self.language.strip() and self.language.isprintable()):
            raise ConfigError("ask.language is empty; name a language, for example en, or null")


@dataclass(frozen=True, kw_only=True)
class Asking:
    """An `AskConfig` with the words of a vocabulary."""

    config: AskConfig
    language: str
    """Of the captions."""
    nouns: Mapping[int, str]
    """What a class is called in captions, by its id."""
    rivals: Mapping[int, tuple[str, ...]]
    """Nouns that a class may be mistaken for, by its id."""
    device: str = "cpu"
    """Where captions are checked."""


def choose_regions(records: Sequence[dict[str, Any]], config: AskConfig) -> tuple[list[dict[str, Any]], int]:
    """The records to ask about, in the order they are asked, and how many wanted ones are beyond the cap."""
    wanted = [record for record in records if _is_wanted(record, config)]
    if config.first == "largest":
        wanted.sort(key=lambda record: -record["area"])
    else:
        wanted.sort(key=_sureness)
    return wanted[: config.max_regions], max(0, len(wanted) - config.max_regions)


def _is_wanted(record: Mapping[str, Any], config: AskConfig) -> bool:
    if config.which == "review":
        return bool(record["decision"] == "review")
    return config.which == "all" or record["verdict"] not in ("yes", "no")


def _sureness(record: Mapping[str, Any]) -> float:
    calibrated = record["score_calibrated"]
    return float(record["score"] if calibrated is None else calibrated)
