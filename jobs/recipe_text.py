"""A recipe as plain data: the file, shorthands, `--set`, secrets, the part that can change a label and its hash."""

import copy
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jobs.label_recipe import is_setting, job_default
from ovsops.errors import ConfigError
from ovsops.segmenters.config import SegmenterConfig
from ovsops.text.yaml_file import parse_yaml
from pipelines.redact import redact
from pipelines.unit_config import work_placement

MAX_RECIPE_BYTES = 1_000_000
"""A longer recipe is a mistake: a vocabulary of thousands of classes belongs into its own file."""


SECRET_KEY = re.compile(r"secret|passw(or)?d|credential|access_?key|api_?key|(^|_)token$", re.IGNORECASE)


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


def steps_as_mappings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """`label: FILE` of a nightly recipe written out as `label: {use: FILE}`, so that `--set` finds a mapping."""
    files = {step: {"use": plain[step]} for step in NIGHTLY_STEPS if isinstance(plain.get(step), str)}
    return {**plain, **files}


def with_shorthands(plain: Mapping[str, Any]) -> dict[str, Any]:
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
            full[name] = asdict(job_default(name)()) | dict(full[name])
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


def refuse_secrets(plain: Any, where: str, path: str = "") -> None:
    """Keys and values that look like credentials: a recipe is stored in `run.json`, in the clear."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            here = f"{path}.{key}" if path else str(key)
            if SECRET_KEY.search(str(key)) and path.split(".")[0] != "vocabulary":
                raise ConfigError(
                    f"{where}: {here} looks like a secret; a recipe is stored with its labels, so give credentials by"
                    " environment (AWS_ACCESS_KEY_ID, AWS_PROFILE, ...) or the machine's role"
                )
            refuse_secrets(value, where, here)
    elif isinstance(plain, list):
        for place, value in enumerate(plain):
            refuse_secrets(value, where, f"{path}.{place}")
    elif isinstance(plain, str) and path.split(".")[0] != "vocabulary" and redact(plain) != plain:
        raise ConfigError(f"{where}: the value of {path} holds a credential; give it by environment instead")


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


NIGHTLY_STEPS = ("label", "negatives", "dataset", "evaluate")
"""Fields of a nightly recipe that hold a recipe."""
