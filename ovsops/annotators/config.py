"""Who annotates: the detector and the region expert beside a segmenter, as fields of a recipe."""

from dataclasses import dataclass, field
from typing import Literal

from ovsops.backbones.checkpoint import Checkpoint
from ovsops.backbones.florence2 import Florence2Config
from ovsops.backbones.mm_grounding_dino import DetectorConfig
from ovsops.errors import ConfigError
from ovsops.regions.attributes import Words
from ovsops.regions.calibration import ScoreCalibrator
from ovsops.regions.caption_config import CaptionConfig, GroundingConfig
from ovsops.regions.exclusive import ExclusiveConfig
from ovsops.regions.presence import PresenceGate, SimilarityConfig
from ovsops.regions.proposals import ProposalConfig
from ovsops.regions.recalibrate import RecalibrationConfig
from ovsops.regions.verify import VerifyConfig
from ovsops.segmenters.kinds import AnySegmenterConfig
from ovsops.segmenters.sam3_boxes import Sam3BoxConfig


@dataclass(frozen=True, kw_only=True)
class LlmDetConfig:
    """Boxes by LLMDet (MM-Grounding-DINO)."""

    kind: Literal["llmdet"] = "llmdet"
    llmdet: Checkpoint
    """The detector."""
    languages: tuple[str, ...] = ("en",)
    """Languages whose prompts it is asked: the published text tower reads English."""
    ask: Literal["classes", "groups"] = "classes"
    """What it is asked for: every prompt of every class, or only the names of their groups (`group: ball` for `red
    ball`, `blue ball`). A detector knows nouns better than colours; which class of the group it is the expert says."""
    masks: Literal["map", "sam3"] = "map"
    """Where masks of its boxes come from: the segmenter's class map (without a segmenter the box itself), or
    a segmenter of kind sam3 that is shown each box."""
    sam3_boxes: Sam3BoxConfig = field(default_factory=Sam3BoxConfig)
    """Which of the instances that SAM 3 finds for a box is the box's own."""
    reading: DetectorConfig = field(default_factory=DetectorConfig)
    """How images and names reach it, and what of its answer is kept."""

    def __post_init__(self) -> None:
        if not self.languages:
            raise ConfigError("detector.languages is empty; name at least one, for example [en]")


@dataclass(frozen=True, kw_only=True)
class ProposalDetectorConfig:
    """Boxes without a detector: connected parts of the segmenter's things."""

    kind: Literal["proposals"] = "proposals"
    proposals: ProposalConfig = field(default_factory=ProposalConfig)
    """Which parts become boxes."""


@dataclass(frozen=True, kw_only=True)
class Sam3DetectorConfig:
    """Instances with masks by the segmenter, which must be of kind sam3."""

    kind: Literal["sam3"] = "sam3"


AnyDetectorConfig = LlmDetConfig | ProposalDetectorConfig | Sam3DetectorConfig
"""The config of any kind; `kind` says which."""


@dataclass(frozen=True, kw_only=True)
class PresenceConfig:
    """Whether a class is in the image at all, asked before its boxes are believed."""

    gate: PresenceGate
    """Weights and thresholds, fitted on truth (`fit_gate`)."""
    similarity: SimilarityConfig = field(default_factory=SimilarityConfig)
    """How whole image, patches and attention are joined."""
    keep: float = 0.3
    """Boxes stay from this score on, where their class is not absent."""
    low: float = 0.1
    """A box from here on, even one that is not kept, says that its class may be there: it is not verified absent."""
    sure: float = 0.3
    """Boxes from `low` to here leave open whether all objects of their class are found."""

    def __post_init__(self) -> None:
        for name in ("keep", "sure"):
            if not 0 <= self.low <= getattr(self, name) <= 1:
                raise ConfigError(
                    f"expert.presence: low {self.low}, {name} {getattr(self, name)}: 0 <= low <= {name} <= 1"
                )


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """FG-CLIP 2's second opinion about every box: its name, its words, and whether it is there."""

    fgclip2: Checkpoint
    """The region classifier."""
    max_patches: int | None = None
    """Patches that an image is read at; None chooses 128 to 1024 by its size, as published."""
    templates: Literal["none", "vocabulary"] = "none"
    """Sentences that stand for a class: its prompts alone, as the box texts of the training, or in the vocabulary's
    templates (an ensemble)."""
    recalibration: RecalibrationConfig | None = field(default_factory=RecalibrationConfig)
    """How its opinion and the detector's are joined; null keeps the detector's names and scores."""
    competing_by: Literal["group", "parent", "name"] = "group"
    """Which classes compete in mode `competing`: those of one `group`, of one `parent`, or whose names end in the same
    word (`red ball`, `blue ball`)."""
    nms_iou: float | None = 0.8
    """Boxes that got the same name are doubles above this IoU; null keeps them."""
    min_score: float = 0.05
    """Boxes below this score, after the opinions are joined, are dropped and counted."""
    presence: PresenceConfig | None = None
    """Null asks nobody whether a class is there."""
    captions: CaptionConfig | None = None
    """Which attributes a region's caption may say, and how sure the expert must be; null writes no captions."""
    caption_language: str | None = None
    """Null: the first of the recipe's languages."""
    verify: VerifyConfig | None = None
    """Whether each box is asked once more if it is what its label says, with a map of the evidence; null does not."""

    def __post_init__(self) -> None:
        for name, value in (("nms_iou", self.nms_iou), ("min_score", self.min_score)):
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"expert.{name} is {value}; it must lie in [0, 1]")
        if self.max_patches is not None and self.max_patches < 1:
            raise ConfigError(f"expert.max_patches is {self.max_patches}; it must be 1 or more, or null")


@dataclass(frozen=True, kw_only=True)
class Florence2CaptionerConfig:
    """Phrases for judged boxes by Florence-2, which writes English."""

    kind: Literal["florence2"] = "florence2"
    florence2: Checkpoint
    """The captioner."""
    reading: Florence2Config = field(default_factory=Florence2Config)
    """What it is asked, and how it answers."""
    max_regions: int = 100
    """Boxes of an image that are described at most, those of the best scores."""
    grounding: GroundingConfig | None = field(default_factory=GroundingConfig)
    """When the expert believes a clause; what it does not see is dropped. Null, and a recipe without an expert, believe
    all."""
    words: Words = "photos"
    """The attribute words that clauses are compared by."""
    max_phrases: int = 20_000
    """Phrases whose features are kept between images; 3 kB each at 768 channels."""

    def __post_init__(self) -> None:
        for name in ("max_regions", "max_phrases"):
            if getattr(self, name) < 1:
                raise ConfigError(f"captioner.{name} is {getattr(self, name)}; it must be 1 or more")


AnyCaptionerConfig = Florence2CaptionerConfig
"""The config of any kind; `kind` says which."""


@dataclass(frozen=True, kw_only=True)
class AnnotatorConfig:
    """Who takes part. At least a segmenter or a detector."""

    segmenter: AnySegmenterConfig | None = None
    detector: AnyDetectorConfig | None = None
    expert: ExpertConfig | None = None
    captioner: AnyCaptionerConfig | None = None
    other: AnySegmenterConfig | None = None
    """A second segmenter, whose opinion is compared with the first one's."""
    exclusive: ExclusiveConfig = field(default_factory=ExclusiveConfig)
    calibrator: ScoreCalibrator | None = None

    def __post_init__(self) -> None:
        if self.segmenter is None and self.detector is None:
            raise ConfigError("neither segmenter nor detector: give one of them, or both")
        needs_map = isinstance(self.detector, ProposalDetectorConfig)
        if needs_map and self.segmenter is None:
            raise ConfigError(
                "detector.kind is proposals: they are parts of a segmenter's map; add `segmenter`"
            )
        if isinstance(self.detector, Sam3DetectorConfig) and getattr(self.segmenter, "kind", "") != "sam3":
            raise ConfigError(
                "detector.kind is sam3: `segmenter` must be of kind sam3, too; it is asked once for both"
            )
        if isinstance(self.detector, LlmDetConfig) and self.detector.masks == "sam3":
            if getattr(self.segmenter, "kind", "") != "sam3":
                raise ConfigError(
                    "detector.masks is sam3: `segmenter` must be of kind sam3, which is shown the boxes"
                )
        if self.expert is not None and self.detector is None:
            raise ConfigError(
                "expert: there is no detector whose boxes it could judge; add `detector` (`{kind: proposals}` takes "
                "the segmenter's own things)"
            )
        if self.captioner is not None and self.detector is None:
            raise ConfigError(
                "captioner: there is no detector whose boxes it could describe; add `detector` (`{kind: proposals}` "
                "takes the segmenter's own things), or use `ask`, which describes every region"
            )
        if self.other is not None and self.segmenter is None:
            raise ConfigError("agreement: there is no first segmenter to compare with; add `segmenter`")
        if isinstance(self.detector, LlmDetConfig) and self.detector.ask == "groups":
            recalibration = None if self.expert is None else self.expert.recalibration
            if recalibration is None or recalibration.mode == "keep":
                raise ConfigError(
                    "detector.ask is groups: which class of the group a box shows must be said by `expert` with "
                    "recalibration.mode competing or global"
                )
