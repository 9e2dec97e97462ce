"""A recipe: what a run shall do, as one YAML file, resolved into the dataclasses that stages and operators own.

`job` says which recipe it is; that of a training is in `train_recipe`, which is loaded when one is read.

`LabelRecipe` holds no number of its own where a stage or operator has one: its fields are their configs. The part of
a recipe that can change a label (`split_recipe`) decides whether an output may be continued.
"""

import copy
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import yaml

from jobs.door import BY_KIND, from_plain, json_schema
from jobs.named_settings import named_as_mappings, with_named_settings
from jobs.truth_recipe import CocoInstancesTruthConfig, WorldTruthConfig
from ovsops.annotators.config import AnnotatorConfig, AnyCaptionerConfig, AnyDetectorConfig, ExpertConfig
from ovsops.annotators.regions import InstancesConfig
from ovsops.errors import ConfigError
from ovsops.images.decode import DecodeConfig
from ovsops.masks.regions import RegionConfig
from ovsops.regions.agreement import AgreementConfig
from ovsops.regions.exclusive import ExclusiveConfig
from ovsops.segmenters.config import SegmenterConfig
from ovsops.segmenters.kinds import AnySegmenterConfig
from ovsops.text.yaml_file import parse_yaml
from pipelines.ask_config import AskConfig
from pipelines.endpoint_config import ENDPOINT_SETTINGS
from pipelines.label import LabelJob
from pipelines.readers import ReaderConfig
from pipelines.redact import redact
from pipelines.runner import Placement, RayConfig
from pipelines.stages.annotate import BatchConfig
from pipelines.storage import StorageOptions
from pipelines.summary import Limits
from pipelines.unit_config import work_placement

if TYPE_CHECKING:
    from jobs.dataset_recipe import DatasetRecipe
    from jobs.evaluate_recipe import EvaluateRecipe
    from jobs.mine_recipe import MineRecipe
    from jobs.negatives_recipe import NegativesRecipe
    from jobs.nightly_recipe import NightlyRecipe
    from jobs.train_recipe import TrainRecipe

    UnitRecipe: TypeAlias = NegativesRecipe | DatasetRecipe | MineRecipe
    AnyRecipe: TypeAlias = "LabelRecipe | TrainRecipe | EvaluateRecipe | UnitRecipe | NightlyRecipe"

MAX_RECIPE_BYTES = 1_000_000
"""A longer recipe is a mistake: a vocabulary of thousands of classes belongs into its own file."""

SECRET_KEY = re.compile(r"secret|passw(or)?d|credential|access_?key|api_?key|(^|_)token$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class InputConfig:
    """What is read."""

    shards: tuple[str, ...]
    """Archives, folders, globs, brace ranges `{000..123}`; local or s3://. Relative to the working directory."""
    only: tuple[str, ...] = ()
    """Names of those of these shards that are read (a nightly job names the new ones); empty: all of them."""
    reader: ReaderConfig = field(default_factory=ReaderConfig)
    """Caps of the reader and the names of sidecar fields."""

    def __post_init__(self) -> None:
        if not self.shards:
            raise ConfigError("input.shards is empty; name at least one archive, folder or pattern")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """How the model's numbers are computed."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda when segment_on.num_gpus is over 0, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 on cuda, float32 on the CPU. Part of what decides labels."""

    def resolve(self, *, num_gpus: float) -> "ModelConfig":
        """The same without `auto`."""
        device = self.device if self.device != "auto" else "cuda" if num_gpus > 0 else "cpu"
        dtype = self.dtype if self.dtype != "auto" else "bfloat16" if device == "cuda" else "float32"
        return ModelConfig(device=device, dtype=dtype)


@dataclass(frozen=True, kw_only=True)
class SecondOpinion:
    """Another segmenter whose map is compared with the first one's, region by region."""

    segmenter: Annotated[AnySegmenterConfig, BY_KIND]
    """As the recipe's own `segmenter`."""
    compare: AgreementConfig = field(default_factory=AgreementConfig)
    """What counts as agreement."""


@dataclass(frozen=True, kw_only=True)
class CalibratorFile:
    """Where the map of scores to chances lies that was fitted on truth or audits."""

    source: str
    """A JSON file as `ovsops fit` writes it, or `miniature:NAME` for one that comes with the package."""
    sha256: str | None = None
    """Of the file; None records it without checking."""


def _job_default(name: str) -> Any:
    """The label job's own default of a field."""
    (found,) = (f for f in fields(LabelJob) if f.name == name)
    return found.default_factory


@dataclass(frozen=True, kw_only=True)
class LabelRecipe:
    """The label job: images in, COCO masks in Parquet out."""

    job: Literal["label"] = "label"
    """Which job the recipe describes."""
    input: InputConfig
    """What is read."""
    output: str
    """Folder or s3://bucket/prefix that gets the labels. Relative to the working directory."""
    vocabulary: Any
    """A file (relative to the recipe), the name of a built-in vocabulary, or the vocabulary itself."""
    languages: tuple[str, ...] = ("en",)
    """Languages whose prompts stand for a class; ids and outputs do not depend on them."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """Caps on images."""
    segmenter: Annotated[AnySegmenterConfig, BY_KIND] | None = None
    """Checkpoints and numbers of the segmenter; `kind` says which. `use` takes those of a file or of a built-in
    setting, and what stands beside it changes them. Null where only boxes are wanted."""
    detector: Annotated[AnyDetectorConfig, BY_KIND] | None = None
    """Who finds things with boxes; null where the segmenter's regions are enough. `use` as for segmenters."""
    expert: ExpertConfig | None = None
    """FG-CLIP 2's second opinion about every box. `use` as for segmenters."""
    captioner: AnyCaptionerConfig | None = None
    """Who describes the detector's boxes; the expert, where there is one, checks the words. Its captions replace those
    of the expert where they say something that is supported."""
    exclusive: ExclusiveConfig = field(default_factory=ExclusiveConfig)
    """When names of one of the vocabulary's exclusive groups are rivals for a thing."""
    instances: InstancesConfig = field(default_factory=InstancesConfig)
    """From boxes to instances."""
    agreement: SecondOpinion | None = None
    """A second segmenter to compare with."""
    calibrator: CalibratorFile | None = None
    """What turns scores of boxes into chances; null leaves `score_calibrated` empty."""
    ask: AskConfig | None = None
    """A vision-language model's captions and verdicts about regions; null asks nobody."""
    truth: Annotated[WorldTruthConfig | CocoInstancesTruthConfig, BY_KIND] = field(
        default_factory=WorldTruthConfig
    )
    """What is true of the images, for `ovsops fit` alone: the JSON of drawn scenes, or a COCO file. No label depends
    on it."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Device and precision of the model."""
    regions: RegionConfig = field(default_factory=RegionConfig)
    """From class maps to regions."""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """How images are grouped for the model."""
    limits: Limits = field(default_factory=Limits)
    """When a finished run exits with 3."""
    storage: StorageOptions = field(default_factory=StorageOptions)
    """How object storage is reached. Credentials come from the environment, never from a recipe."""
    ray: RayConfig = field(default_factory=RayConfig)
    """The cluster."""
    segment_on: Placement = field(default_factory=_job_default("segment_on"))
    """Actors of the segmenter."""
    encode_on: Placement = field(default_factory=_job_default("encode_on"))
    """Workers that turn class maps into regions, and write parts where nobody is asked."""
    ask_on: Placement = field(default_factory=_job_default("ask_on"))
    """Workers that ask the endpoint and write parts. They wait for the network: small shares of a CPU, blocks side by
    side. A share of a GPU is for `ask.ground`."""
    cache: str | None = None
    """Folder of text features; OVSOPS_CACHE or ~/.cache/ovsops where it is not given."""

    def __post_init__(self) -> None:
        _ = self.annotators  # refuses parts that do not go together
        if not isinstance(self.vocabulary, str | Mapping) or not self.vocabulary:
            raise ConfigError("vocabulary: expected a file, a built-in name or a mapping with `classes`")
        if not self.languages:
            raise ConfigError("languages is empty; name at least one, for example [en]")
        if self.segment_on.actors < 1:
            raise ConfigError(
                "segment_on.actors is 0: the model would be loaded for every block; give 1 or more"
            )
        if self.ask is not None and self.ask_on.actors < 1:
            raise ConfigError(
                "ask_on.actors is 0: a decoder would be started for every block; give 1 or more"
            )
        if self.model.device == "cuda" and self.segment_on.num_gpus <= 0:
            raise ConfigError(
                "model.device is cuda, but segment_on.num_gpus is 0; give each actor a share of a GPU"
            )

    @property
    def annotators(self) -> AnnotatorConfig:
        """Who takes part; the calibrator's file is not read."""
        return AnnotatorConfig(
            segmenter=self.segmenter,
            detector=self.detector,
            expert=self.expert,
            captioner=self.captioner,
            other=None if self.agreement is None else self.agreement.segmenter,
            exclusive=self.exclusive,
        )

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Of the steps that take part."""
        return (self.segment_on, self.encode_on, *([] if self.ask is None else [self.ask_on]))

    @property
    def cache_dir(self) -> Path:
        """Where text features are kept."""
        place = self.cache or os.environ.get("OVSOPS_CACHE") or "~/.cache/ovsops"
        return Path(place).expanduser()


JOBS = ("label", "negatives", "dataset", "mine", "train", "evaluate", "nightly")
"""Values of `job`."""


def recipe_class(job: str) -> "type[AnyRecipe]":
    """Recipe class by the value of `job`."""
    if job == "label":
        return LabelRecipe
    if job == "negatives":
        from jobs.negatives_recipe import NegativesRecipe  # loads the lexicons' code

        return NegativesRecipe
    if job == "dataset":
        from jobs.dataset_recipe import DatasetRecipe  # loads the writers

        return DatasetRecipe
    if job == "mine":
        from jobs.mine_recipe import MineRecipe  # loads the code of embeddings

        return MineRecipe
    if job == "evaluate":
        from jobs.evaluate_recipe import EvaluateRecipe  # loads the metrics

        return EvaluateRecipe
    if job == "nightly":
        from jobs.nightly_recipe import NightlyRecipe  # loads what nights are compared with

        return NightlyRecipe
    from jobs.train_recipe import TrainRecipe  # loads the programs, which label recipes do not need

    return TrainRecipe


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """A recipe of the label job and where it came from."""

    recipe: LabelRecipe
    folder: Path
    """A relative vocabulary is looked up here."""
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedTrain:
    """A recipe of the train job and where it came from."""

    recipe: "TrainRecipe"
    folder: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedEvaluate:
    """A recipe of the evaluate job and where it came from."""

    recipe: "EvaluateRecipe"
    folder: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedUnits:
    """A recipe of a job over committed shards (negatives, dataset, mine) and where it came from."""

    recipe: "UnitRecipe"
    folder: Path
    where: str


@dataclass(frozen=True, kw_only=True)
class LoadedNightly:
    """A recipe of the nightly job and where it came from."""

    recipe: "NightlyRecipe"
    folder: Path
    """Relative recipes of steps are looked up here."""
    where: str


Loaded = LoadedRecipe | LoadedTrain | LoadedEvaluate | LoadedUnits | LoadedNightly


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Loaded:
    """Read a recipe file and apply `a.b=c` overrides. Raises ConfigError."""
    where = f"recipe {path}"
    plain = named_as_mappings(read_recipe_file(path))
    folder = path.resolve().parent
    if isinstance(plain.get("workers"), int):  # so that --set workers.num_threads=1 finds a mapping
        plain["workers"] = {"num_workers": plain["workers"]}
    if plain.get("job") == "nightly":
        plain = steps_as_mappings(plain)
    full = with_named_settings(apply_overrides(plain, overrides), folder, where=where)
    recipe = recipe_from_plain(full, where=where)
    if isinstance(recipe, LabelRecipe):
        return LoadedRecipe(recipe=recipe, folder=folder, where=where)
    if recipe.job == "negatives" or recipe.job == "dataset" or recipe.job == "mine":
        return LoadedUnits(recipe=recipe, folder=folder, where=where)
    if recipe.job == "evaluate":
        return LoadedEvaluate(recipe=recipe, folder=folder, where=where)
    if recipe.job == "nightly":
        return LoadedNightly(recipe=recipe, folder=folder, where=where)
    return LoadedTrain(recipe=recipe, folder=folder, where=where)


NIGHTLY_STEPS = ("label", "negatives", "dataset", "evaluate")
"""Fields of a nightly recipe that hold a recipe."""


def steps_as_mappings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """`label: FILE` of a nightly recipe written out as `label: {use: FILE}`, so that `--set` finds a mapping."""
    files = {step: {"use": plain[step]} for step in NIGHTLY_STEPS if isinstance(plain.get(step), str)}
    return {**plain, **files}


def read_recipe_file(path: Path) -> dict[str, Any]:
    """The fields of a recipe file, as they stand there. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_RECIPE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"recipe {path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"recipe {path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    if len(data) > MAX_RECIPE_BYTES:
        raise ConfigError(
            f"recipe {path}: over {MAX_RECIPE_BYTES} bytes; put the vocabulary into a file of its own"
        )
    where = f"recipe {path}"
    plain = parse_yaml(text, where=where)
    if not isinstance(plain, dict):
        raise ConfigError(f"{where}: expected fields such as `job: label`, found {type(plain).__name__}")
    return plain


def recipe_from_plain(plain: Mapping[str, Any], *, where: str) -> "AnyRecipe":
    """Plain data to a recipe; ConfigError names every wrong field."""
    _refuse_secrets(plain, where)
    job = plain.get("job", "label")
    if job not in JOBS:
        raise ConfigError(f"{where}: job is {job!r}; this version knows {', '.join(JOBS)}")
    return from_plain(recipe_class(str(job)), _with_shorthands(plain), where=where)


def _with_shorthands(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A segmenter without a kind is the fused one; one input pattern may stand without a list; a placement keeps the
    job's defaults for what it leaves out; workers may be a number; labels may be one output without a name;
    what is said of objects may be one word.
    """
    full = dict(plain)
    if isinstance(full.get("segmenter"), Mapping):
        full["segmenter"] = {"kind": SegmenterConfig.kind, **full["segmenter"]}
    if isinstance(full.get("calibrator"), str):
        full["calibrator"] = {"source": full["calibrator"]}
    if isinstance(full.get("labels"), str) and full.get("job") == "evaluate":
        full["labels"] = {"labels": full["labels"]}
    if "objects" in full and not isinstance(full["objects"], Mapping):
        full["objects"] = {"compute": full["objects"]}
    objects = full.get("objects")
    if isinstance(objects, Mapping) and isinstance(objects.get("compute"), bool):  # YAML reads on and off so
        full["objects"] = {**objects, "compute": "on" if objects["compute"] else "off"}
    truth = full.get("truth")
    if isinstance(truth, Mapping) and isinstance(truth.get("shards"), str):
        full["truth"] = {**truth, "shards": [truth["shards"]]}
    source = full.get("input")
    if isinstance(source, Mapping) and isinstance(source.get("shards"), str):
        full["input"] = {**source, "shards": [source["shards"]]}
    for name in ("segment_on", "encode_on", "ask_on"):
        if isinstance(full.get(name), Mapping):
            full[name] = asdict(_job_default(name)()) | dict(full[name])
    if isinstance(full.get("workers"), int):
        full["workers"] = {"num_workers": full["workers"]}
    if isinstance(full.get("work_on"), Mapping):
        full["work_on"] = asdict(work_placement()) | dict(full["work_on"])
    if isinstance(full.get("mine_on"), Mapping):
        full["mine_on"] = asdict(work_placement()) | dict(full["mine_on"])
    if isinstance(full.get("shards"), str):
        full["shards"] = [full["shards"]]
    canary = full.get("canary")
    if isinstance(canary, Mapping) and isinstance(canary.get("shards"), str):
        full["canary"] = {**canary, "shards": [canary["shards"]]}
    return full


def apply_overrides(plain: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`a.b=c` puts the YAML value `c` at field b of a; fields that are missing or null on the way are made."""
    changed: dict[str, Any] = copy.deepcopy(dict(plain))
    for override in overrides:
        path, equals, text = override.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f"--set {override}: expected FIELD=VALUE, for example --set segmenter.threshold=0.4"
            )
        inner = changed
        for key in keys[:-1]:
            if inner.get(key) is None:
                inner[key] = {}
            inner = inner[key]
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {override}: {key} is no mapping, so nothing can be set inside it")
        inner[keys[-1]] = parse_yaml(text, where=f"--set {path}")
    return changed


def _refuse_secrets(plain: Any, where: str, path: str = "") -> None:
    """Keys and values that look like credentials: a recipe is stored in `run.json`, in the clear."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            here = f"{path}.{key}" if path else str(key)
            if SECRET_KEY.search(str(key)) and path.split(".")[0] != "vocabulary":
                raise ConfigError(
                    f"{where}: {here} looks like a secret; a recipe is stored with its labels, so give credentials by"
                    " environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...) or the machine's role"
                )
            _refuse_secrets(value, where, here)
    elif isinstance(plain, list):
        for place, value in enumerate(plain):
            _refuse_secrets(value, where, f"{path}.{place}")
    elif isinstance(plain, str) and path.split(".")[0] != "vocabulary" and redact(plain) != plain:
        raise ConfigError(f"{where}: the value of {path} holds a credential; give it by environment instead")


def to_plain(recipe: "AnyRecipe") -> dict[str, Any]:
    """Every field with its value, as plain data (tuples as lists)."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return plain


def to_yaml(recipe: "AnyRecipe") -> str:
    """The resolved recipe as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(to_plain(recipe), sort_keys=False, allow_unicode=True, width=110)


def recipe_schema(job: str = "label") -> dict[str, Any]:
    """JSON schema for editors."""
    schema = json_schema(recipe_class(job))
    if job == "nightly":
        for step in NIGHTLY_STEPS:
            schema["properties"][step] |= {
                "anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]
            }
        _allow(schema["$defs"]["CanaryConfig"]["properties"], "shards", {"type": "string"})
    if job in ("negatives", "dataset", "mine", "nightly"):
        return schema
    if job == "evaluate":
        _allow(schema["properties"], "labels", {"type": "string"})
        _allow(schema["properties"], "objects", {"type": "string"})
    if job in ("label", "evaluate"):
        _allow(schema["$defs"]["WorldTruthConfig"]["properties"], "shards", {"type": "string"})
    if job == "evaluate":
        return schema
    source = schema["$defs"]["InputConfig" if job == "label" else "TrainInput"]["properties"]
    _allow(source, "shards", {"type": "string"})
    if job == "label":
        named = {"properties": {"use": {"type": "string"}}, "required": ["use"], "type": "object"}
        _allow(schema["properties"], "segmenter", {"anyOf": [{"type": "string"}, named]})
        schema["properties"]["vocabulary"] |= {"anyOf": [{"type": "string"}, {"type": "object"}]}
    else:
        _allow(schema["properties"], "workers", {"type": "integer", "minimum": 1})
    return schema


def _allow(properties: dict[str, Any], name: str, shorthand: Mapping[str, Any]) -> None:
    """A property that may be given in another way, too."""
    full = properties[name]
    properties[name] = {"description": full.pop("description", ""), "anyOf": [dict(shorthand), full]}


_SETTINGS = (
    "job",
    "input.shards",
    "input.only",
    "output",
    "segmenter.*.source",
    "segmenter.*.revision",
    "segmenter.views_per_batch",
    "segmenter.class_chunk",
    "detector.*.source",
    "detector.*.revision",
    "detector.reading.pairs_per_pass",
    "expert.fgclip2.source",
    "expert.fgclip2.revision",
    "captioner.florence2.source",
    "captioner.florence2.revision",
    "captioner.reading.regions_per_batch",
    "agreement.segmenter.*.source",
    "agreement.segmenter.*.revision",
    "calibrator.source",
    *(f"ask.endpoint.{name}" for name in ENDPOINT_SETTINGS),
    "ask.stop_after",
    "ask.ground.fgclip2.source",
    "ask.ground.fgclip2.revision",
    "model.device",
    "limits",
    "storage",
    "ray",
    "segment_on",
    "encode_on",
    "ask_on",
    "truth",
    "cache",
)
"""Fields that cannot change a label. Everything else can, so that a new field is never forgotten."""

_BATCH_LABELS = "batch.skip_under_side"


def is_setting(path: str) -> bool:
    """Whether the field at a dotted path may change between starts of one output."""
    if path.startswith("batch."):
        return path != _BATCH_LABELS
    keys = path.split(".")
    for pattern in _SETTINGS:
        parts = pattern.split(".")
        if len(parts) <= len(keys) and all(p in ("*", k) for p, k in zip(parts, keys, strict=False)):
            return True
    return False


def split_recipe(
    plain: Mapping[str, Any], path: str = "", *, is_setting: Callable[[str], bool] = is_setting
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The part that can change a label, and the settings; `merge` puts them together again."""
    labels: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for key, value in plain.items():
        here = f"{path}.{key}" if path else str(key)
        if is_setting(here):
            settings[key] = value
        elif isinstance(value, Mapping) and here != "vocabulary":
            inner_labels, inner_settings = split_recipe(value, here, is_setting=is_setting)
            if inner_labels or not inner_settings:
                labels[key] = inner_labels
            if inner_settings:
                settings[key] = inner_settings
        else:
            labels[key] = value
    return labels, settings


def recipe_hash(labels: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of the part that can change a label."""
    text = json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
