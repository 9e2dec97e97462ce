"""Where weights come from: local folders and pinned hub revisions, safetensors only, hashed.

The only module that calls `from_pretrained`. It never runs code that comes with a checkpoint, and it
refuses what could: pickle files are named in the error together with the way out.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from ovsops.backbones.presets import PRESETS
from ovsops.backbones.shipped import miniature_checkpoint
from ovsops.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

Owner = TypeVar("Owner")
"""A frozen dataclass with checkpoints among its fields."""

SHIPPED = "miniature:"
"""A source that begins so is a part of the checkpoints that come with the package, such as `miniature:siglip2`."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_PICKLES = ("*.bin", "*.pth", "*.pt", "*.ckpt", "*.pkl")
_WANTED = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.txt")
_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Weights by place and content."""

    source: str
    """A local folder, a local .safetensors file, a hub repository `owner/name`, a preset's name, or `miniature:PART`
    for one that comes with the package."""
    revision: str | None = None
    """Full 40-hex commit of the hub repository; required there, refused for local paths."""
    sha256: str | None = None
    """Expected identity, as `resolve(checkpoint).sha256` gives it; None records it without checking."""

    def __post_init__(self) -> None:
        if not self.source:
            raise ConfigError("checkpoint: source is empty; give a folder or a hub repository owner/name")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ConfigError(
                f"checkpoint {self.source}: sha256 {self.sha256!r} is not 64 lower-case hex digits"
            )
        if self.revision is not None and not _COMMIT.fullmatch(self.revision):
            raise ConfigError(
                f"checkpoint {self.source}: revision {self.revision!r} may move; give the full 40-hex commit"
            )


@dataclass(frozen=True)
class ResolvedCheckpoint:
    """A checkpoint that lies on this machine's disk."""

    path: Path
    """The folder, or the single .safetensors file."""
    source: str
    revision: str | None

    @property
    def folder(self) -> Path:
        """The folder that holds the weights."""
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The safetensors files, in name order."""
        return (self.path,) if self.path.is_file() else tuple(sorted(self.path.glob("*.safetensors")))

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over the weights and the config (and tokenizer), names included, places not."""
        digest = hashlib.sha256()
        beside = [] if self.path.is_file() else [self.path / "config.json", self.path / "tokenizer.json"]
        for file in (*self.weight_files, *(f for f in beside if f.exists())):
            digest.update(f"{file.name}\0{_sha256_of_file(file)}\n".encode())
        return digest.hexdigest()

    @property
    def identity(self) -> str:
        """`owner/name@commit sha256:...`, or `local sha256:...`: what a manifest records; no paths of this
        machine.
        """
        place = f"{self.source}@{self.revision}" if self.revision else "local"
        return f"{place} sha256:{self.sha256}"


def resolve(checkpoint: Checkpoint) -> ResolvedCheckpoint:
    """Find the checkpoint on disk, downloading a pinned hub revision where that is allowed.

    `HF_HUB_OFFLINE=1` forbids downloads: then only what the hub's cache already holds is found.
    """
    shipped = checkpoint.source.startswith(SHIPPED)
    local = (
        miniature_checkpoint(checkpoint.source.removeprefix(SHIPPED))
        if shipped
        else Path(checkpoint.source).expanduser()
    )
    if local.exists():
        if checkpoint.revision is not None:
            raise CheckpointError(
                f"checkpoint {local}: a local path has no revision; drop it, or give sha256"
            )
        found = ResolvedCheckpoint(local, checkpoint.source, None)
    else:
        found = ResolvedCheckpoint(_download(checkpoint), _repository(checkpoint), checkpoint.revision)
    _check_safe(found)
    if checkpoint.sha256 is not None and found.sha256 != checkpoint.sha256:
        raise CheckpointError(
            f"checkpoint {checkpoint.source}: SHA-256 is {found.sha256}, "
            f"the recipe expects {checkpoint.sha256}; these are other weights, or the files are damaged"
        )
    return found


def checkpoints_of(config: Any) -> dict[str, Checkpoint]:
    """The checkpoints among a dataclass's fields, by the field's name."""
    values = {field.name: getattr(config, field.name) for field in fields(config)}
    return {role: value for role, value in values.items() if isinstance(value, Checkpoint)}


def pin_checkpoints(config: Owner) -> Owner:
    """The same dataclass with every checkpoint found on disk, its place absolute and its SHA-256 filled in."""
    pinned: dict[str, Any] = {}
    for role, checkpoint in checkpoints_of(config).items():
        found = resolve(checkpoint)
        source = str(found.path.resolve()) if checkpoint.revision is None else checkpoint.source
        pinned[role] = replace(checkpoint, source=source, sha256=found.sha256)
    return replace(config, **pinned)  # type: ignore[type-var]


def load_pretrained(
    model_class: Any,
    checkpoint: ResolvedCheckpoint,
    *,
    device: str,
    dtype: torch.dtype,
    **arguments: Any,
) -> Any:
    """A frozen model in eval mode; every parameter of `model_class` must be in the checkpoint with its shape.

    Weights beyond that are allowed: a two-tower checkpoint may feed one tower. `arguments` go to the constructor.
    """
    if not (checkpoint.folder / "config.json").is_file():
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: no config.json; it is not a transformers folder"
        )
    try:
        with quiet_transformers():
            model, info = model_class.from_pretrained(
                str(checkpoint.folder),
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # they come back in `info`, and are refused below by name
                output_loading_info=True,
                **arguments,
            )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: {model_class.__name__} cannot be loaded: {error}"
        ) from error
    missing, mismatched = sorted(info["missing_keys"]), sorted(str(m) for m in info["mismatched_keys"])
    if missing or mismatched:
        raise CheckpointError(
            f"checkpoint {checkpoint.folder} does not fit {model_class.__name__}: "
            f"{len(missing)} parameters missing ({', '.join(missing[:3])}), "
            f"{len(mismatched)} of another shape ({', '.join(mismatched[:3])}); "
            "is this the right checkpoint for this place in the recipe?"
        )
    logger.info("loaded %s from %s", model_class.__name__, checkpoint.folder)
    return model.to(device).eval().requires_grad_(False)


def read_config(checkpoint: ResolvedCheckpoint) -> dict[str, Any]:
    """config.json as plain data."""
    path = checkpoint.folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"checkpoint {checkpoint.folder}: no config.json; it is not a transformers folder"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"checkpoint {path}: not JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"checkpoint {path}: a JSON object is expected, this is a {type(config).__name__}"
        )
    return config


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars, and no table of the other tower's weights, while a model is loaded or saved."""
    from transformers.utils import logging as theirs

    level, has_bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity_error()
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if has_bars:
            theirs.enable_progress_bar()


def _check_safe(found: ResolvedCheckpoint) -> None:
    if found.path.is_file() and found.path.suffix != ".safetensors":
        raise CheckpointError(
            f"checkpoint {found.path}: only .safetensors files are loaded, because others can run code; "
            "convert it once (a Talk2DINO .pth with ovsops.mapper.convert.convert_talk2dino)"
        )
    if found.weight_files:
        return
    pickles = sorted(f.name for pattern in _PICKLES for f in found.path.glob(pattern))
    if pickles:
        raise CheckpointError(
            f"checkpoint {found.path}: holds only pickle weights ({', '.join(pickles[:3])}), "
            "which can run code and are refused; use a revision with model.safetensors, "
            "or convert the file once on a machine you trust"
        )
    raise CheckpointError(f"checkpoint {found.path}: no .safetensors file in it")


def _repository(checkpoint: Checkpoint) -> str:
    known = PRESETS.get(checkpoint.source)
    return checkpoint.source if known is None else known.repo


def _download(checkpoint: Checkpoint) -> Path:
    repository = _repository(checkpoint)
    if not _REPO.fullmatch(repository):
        raise CheckpointError(
            f"checkpoint {checkpoint.source}: no such folder or file, and not a hub repository owner/name "
            f"or one of the presets {', '.join(PRESETS)}"
        )
    if checkpoint.revision is None:
        raise CheckpointError(
            f"checkpoint {checkpoint.source}: no such local folder; as a hub repository it needs `revision`, "
            "the full 40-hex commit, so that tomorrow's run loads the same weights"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = snapshot_download(repository, revision=checkpoint.revision, allow_patterns=list(_WANTED))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.source}@{checkpoint.revision}: not in the local cache, and the hub "
            "cannot be reached (or HF_HUB_OFFLINE is set); download it where there is a network and give the "
            "folder as source"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"checkpoint {checkpoint.source}@{checkpoint.revision}: the hub refused: {error}; "
            "check the name and commit, and for gated weights that the licence is accepted"
        ) from error
    return Path(folder)


def _sha256_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
