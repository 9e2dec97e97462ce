"""Parts of a recipe that are taken from a file by name, `segmenter: {use: NAME}`; fields beside `use` change them."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from jobs.door import BY_KIND, from_plain
from ovsops.annotators.config import AnyDetectorConfig
from ovsops.errors import ConfigError
from ovsops.segmenters.cass_config import cass_settings
from ovsops.segmenters.kinds import AnySegmenterConfig
from ovsops.segmenters.scclip_config import scclip_settings
from ovsops.text.names import nearest
from ovsops.text.yaml_file import parse_yaml

RECIPES = Path(__file__).with_name("recipes")
SETTINGS: Mapping[tuple[str, ...], Path] = {
    ("segmenter",): RECIPES / "segmenters",
    ("agreement", "segmenter"): RECIPES / "segmenters",
    ("detector",): RECIPES / "detectors",
    ("expert",): RECIPES / "experts",
}
"""Parts that `use` may take from a file, by their path in a label recipe, and the folder of those that are built in."""


def named_as_mappings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """`segmenter: NAME` written out as `segmenter: {use: NAME}`, so that `--set` finds a mapping."""
    full: dict[str, Any] = copy.deepcopy(dict(plain))
    for path in SETTINGS:
        owner = _owner(full, path)
        if owner is not None and isinstance(owner.get(path[-1]), str):
            owner[path[-1]] = {"use": owner[path[-1]]}
    return full


def with_named_settings(plain: Mapping[str, Any], folder: Path, *, where: str) -> dict[str, Any]:
    """Every `use` written out; a name is a file (from `folder`), or built in.

    `published: VOCABULARY` beside a segmenter's `use` takes the values that were published for that data set.

    Raises ConfigError for a name that is neither, and for a file that is no such setting.
    """
    full = named_as_mappings(plain)
    for path, built_in in SETTINGS.items():
        owner = _owner(full, path)
        own = None if owner is None else owner.get(path[-1])
        if owner is None or not isinstance(own, Mapping) or "use" not in own:
            continue
        owner[path[-1]] = _written_out(own, folder, built_in, field=".".join(path), where=where)
    return full


def named_segmenter(name: str, **changes: Any) -> AnySegmenterConfig:
    """A built-in setting of a segmenter, with fields changed."""
    built_in = SETTINGS["segmenter",]
    plain = merge(_setting(name, built_in, built_in, field="segmenter", where="segmenter"), changes)
    config: AnySegmenterConfig = from_plain(_SegmenterOnly, {"segmenter": plain}, where=name).segmenter
    return config


def named_detector(name: str, **changes: Any) -> AnyDetectorConfig:
    """A built-in setting of a detector, with fields changed."""
    built_in = SETTINGS["detector",]
    plain = merge(_setting(name, built_in, built_in, field="detector", where="detector"), changes)
    config: AnyDetectorConfig = from_plain(_DetectorOnly, {"detector": plain}, where=name).detector
    return config


def merge(labels: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Both, the second over the first where both have a value. Inverse of `jobs.recipe.split_recipe`."""
    merged = dict(labels)
    for key, value in settings.items():
        both = isinstance(merged.get(key), Mapping) and isinstance(value, Mapping)
        merged[key] = merge(merged[key], value) if both else value
    return merged


@dataclass(frozen=True, kw_only=True)
class _SegmenterOnly:
    segmenter: Annotated[AnySegmenterConfig, BY_KIND]


@dataclass(frozen=True, kw_only=True)
class _DetectorOnly:
    detector: Annotated[AnyDetectorConfig, BY_KIND]


def _owner(plain: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any] | None:
    """The mapping that holds the last key of a path, or None where there is none."""
    inner: Any = plain
    for key in path[:-1]:
        inner = inner.get(key)
        if not isinstance(inner, dict):
            return None
    return inner if isinstance(inner, dict) else None


def _written_out(
    own: Mapping[str, Any], folder: Path, built_in: Path, *, field: str, where: str
) -> dict[str, Any]:
    named = dict(_setting(str(own["use"]), folder, built_in, field=field, where=where))
    if "published" in own:
        named |= _published(str(named.get("kind")), str(own["published"]), field=field, where=where)
    changed = {key: value for key, value in own.items() if key not in ("use", "published")}
    if changed.get("kind", named.get("kind")) != named.get("kind"):
        raise ConfigError(
            f"{where}: {field}.use is {own['use']!r}, which is of kind {named.get('kind')}, but the fields beside it"
            f" are those of kind {changed['kind']}: `--set {field}={own['use']}` replaces them all"
        )
    return merge(named, changed)


def _published(kind: str, vocabulary: str, *, field: str, where: str) -> dict[str, Any]:
    """The published values of a method for a data set, by the name of its vocabulary."""
    known = {"cass": cass_settings, "scclip": scclip_settings}
    if kind not in known:
        raise ConfigError(
            f"{where}: {field}.published is for {', '.join(known)}; {kind} has no values by data set"
        )
    return known[kind](vocabulary)


def _setting(name: str, folder: Path, built_in: Path, *, field: str, where: str) -> Mapping[str, Any]:
    known = {path.stem: path for path in sorted(built_in.glob("*.yaml"))}
    place = folder / name
    path = place if place.is_file() else known.get(name)
    if path is None:
        raise ConfigError(
            f"{where}: {field}.use is {name!r}: no such file ({place}) and no built-in setting"
            f"{nearest(name, known)}; built in are {', '.join(known)}"
        )
    named = parse_yaml(path.read_text("utf-8"), where=str(path))
    needed = "fgclip2" if field == "expert" else "kind"
    if not isinstance(named, Mapping) or needed not in named:
        raise ConfigError(f"{path}: expected the fields of `{field}`, `{needed}` among them")
    return named
