"""Where the checkpoints lie that come with the package: the miniature ones, trained on drawn scenes."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovsops.errors import CheckpointError

PARTS = ("siglip2", "dinov2", "mapper")
"""Folders of the miniature checkpoints that the fused segmenter needs."""
OTHER_PARTS = ("clip", "dino", "sam3", "fgclip2", "llmdet")
"""Folders of those that other segmenters need, of the region expert and of the detector."""
CALIBRATION = "calibration.json"
"""Constants that were fitted for them, by the names of the segmenter's fields."""

MINIATURE_NOTICE = (
    "The miniature checkpoints know drawn scenes only: their labels of photographs mean nothing."
)
"""For whoever sees labels of theirs; a plan and a report say it."""
MINIATURE_NOTICE_ZH = "微型检查点只认识绘制的场景：它们对照片的标注没有意义。"

_SHIPPED_PLACE = re.compile(r"miniature:.|.*[/\\]ovsops[/\\]checkpoints[/\\]miniature[/\\]")

_FOLDER = Path(__file__).parents[1] / "checkpoints" / "miniature"


def miniature_checkpoints(folder: Path | None = None) -> Path:
    """The folder with `siglip2/`, `dinov2/` and `mapper/`: the shipped one, or another of the same layout.

    Raises `CheckpointError` when a part is missing.
    """
    root = _FOLDER if folder is None else folder
    missing = [part for part in PARTS if not any((root / part).glob("*.safetensors"))]
    if missing:
        raise CheckpointError(
            f"miniature checkpoints {root}: {', '.join(missing)} not found; {_way_out(folder)}"
        )
    return root


def miniature_checkpoint(part: str, folder: Path | None = None) -> Path:
    """The folder of one part: a shipped one, or of another folder of the same layout.

    Raises `CheckpointError` for a part that there is not, and for one without weights.
    """
    root = _FOLDER if folder is None else folder
    known = (*PARTS, *OTHER_PARTS)
    if part not in known:
        raise CheckpointError(f"there is no miniature checkpoint {part!r}; there are {', '.join(known)}")
    if not any((root / part).glob("*.safetensors")):
        way_out = _way_out(None) if folder is None else "expected its .safetensors there"
        raise CheckpointError(f"miniature checkpoint {root / part}: no weights found; {way_out}")
    return root / part


def names_miniature(recipe: Any) -> bool:
    """Whether a recipe as plain data, or one as a manifest keeps it, takes a checkpoint that comes with the package."""
    if isinstance(recipe, Mapping):
        source = recipe.get("source")
        if isinstance(source, str) and _SHIPPED_PLACE.match(source):
            return True
        return any(names_miniature(part) for part in recipe.values())
    return isinstance(recipe, list | tuple) and any(names_miniature(part) for part in recipe)


def fitted_file(source: str) -> Path:
    """A file of fitted constants: a path, or `miniature:NAME` for `NAME.json` beside the shipped checkpoints.

    Raises `CheckpointError` for one that does not come with the package.
    """
    if not source.startswith("miniature:"):
        return Path(source).expanduser()
    path = _FOLDER / f"{source.removeprefix('miniature:')}.json"
    if not path.is_file():
        known = ", ".join(f"miniature:{each.stem}" for each in sorted(_FOLDER.glob("*.json")))
        raise CheckpointError(f"there is no {source}; there are {known}")
    return path


def _way_out(folder: Path | None) -> str:
    if folder is None:
        return (
            "they come with the package: install it again, or train them by the recipes "
            "jobs/recipes/train_*_miniature"
        )
    return f"expected the parts {', '.join(PARTS)}, each with its .safetensors"


def miniature_calibration(folder: Path) -> dict[str, float]:
    """Numbers of `calibration.json` in the folder; empty without the file.

    Raises `CheckpointError` for a file that does not hold finite numbers by name.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return {}
    try:
        plain = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as JSON ({error}); install the package again"
        ) from error
    if not isinstance(plain, dict):
        raise CheckpointError(f"{path}: expected numbers by name, found {type(plain).__name__}")
    wrong = [
        name
        for name, value in plain.items()
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value)
    ]
    if wrong:
        raise CheckpointError(f"{path}: {', '.join(wrong[:5])} is no finite number; expected numbers by name")
    return {name: float(value) for name, value in plain.items()}
