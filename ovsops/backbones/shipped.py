"""Where the checkpoints lie that come with the package: the miniature ones, trained on drawn scenes."""

import json
import math
from pathlib import Path

from ovsops.errors import CheckpointError

PARTS = ("siglip2", "dinov2", "mapper")
"""Folders of the miniature checkpoints that the fused segmenter needs."""
OTHER_PARTS = ("clip", "dino", "sam3", "fgclip2", "llmdet")
"""Folders of those that other segmenters need, of the region expert and of the detector."""
CALIBRATION = "calibration.json"
"""Constants that were fitted for them, by the names of the segmenter's fields."""

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
