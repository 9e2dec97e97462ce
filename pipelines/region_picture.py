"""The picture of one region that goes with a question: cut out, or whole with a box around it, as JPEG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from ovsops.errors import ConfigError, ShapeError
from ovsops.regions.vlm_dialogue import View

_RED = (255, 0, 0)


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """What a model is shown of a region."""

    view: View = "crop"
    """`crop`: the region alone; `box`: the whole picture with a red box, for answers that need the surroundings."""
    crop_margin: float = 0.1
    """Share of the box's sides that is added on each side of a crop."""
    max_side: int = 768
    """Longer pictures are made smaller, in pixels: tokens cost."""
    min_side: int = 64
    """Smaller crops are enlarged, in pixels: models refuse pictures of a few."""
    jpeg_quality: int = 90

    def __post_init__(self) -> None:
        if not 0 <= self.crop_margin <= 2:
            raise ConfigError(f"picture.crop_margin is {self.crop_margin}; a share from 0 to 2 is wanted")
        if not 1 <= self.min_side <= self.max_side <= 8192:
            raise ConfigError(
                f"picture: min_side is {self.min_side}, max_side {self.max_side}; 1 <= min <= max <= 8192 is wanted"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"picture.jpeg_quality is {self.jpeg_quality}; 1 to 100 is wanted")


def region_picture(
    image: UInt8[np.ndarray, "h w 3"], box_xyxy: Sequence[float | int], config: PictureConfig | None = None
) -> bytes:
    """JPEG of the region; the same pixels and box give the same bytes.

    The box is half-open, in pixels, and cut to the image; one that is nothing then is a ShapeError.
    """
    config = config or PictureConfig()
    height, width = image.shape[:2]
    x0, y0, x1, y1 = (float(side) for side in box_xyxy)
    inside = max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
    if not (inside[2] > inside[0] and inside[3] > inside[1]) or not np.isfinite([x0, y0, x1, y1]).all():
        raise ShapeError(
            f"box {[x0, y0, x1, y1]} shows nothing of the {width}x{height} image: ask for empty regions first"
        )
    if config.view == "crop":
        picture = _sized(
            Image.fromarray(image).crop(_outward(inside, config.crop_margin, width, height)), config
        )
    else:
        whole = Image.fromarray(image)
        picture = _sized(whole, config)
        _draw_box(picture, inside, picture.width / width, picture.height / height)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=config.jpeg_quality, subsampling=0)
    return out.getvalue()


def _outward(
    box: tuple[float, float, float, float], margin: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """Whole pixels around the box and its margin, within the image."""
    x0, y0, x1, y1 = box
    dx, dy = margin * (x1 - x0), margin * (y1 - y0)
    return (
        max(0, int(np.floor(x0 - dx))),
        max(0, int(np.floor(y0 - dy))),
        min(width, int(np.ceil(x1 + dx))),
        min(height, int(np.ceil(y1 + dy))),
    )


def _sized(picture: Image.Image, config: PictureConfig) -> Image.Image:
    """Within `max_side`, and where that allows it at least `min_side`."""
    short, long = sorted(picture.size)
    scale = min(config.max_side / long, max(1.0, config.min_side / short))
    if scale == 1:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def _draw_box(picture: Image.Image, box: tuple[float, float, float, float], sx: float, sy: float) -> None:
    """Two pixels or more, around the region where there is room."""
    line = max(2, round(max(picture.size) / 256))
    x0, y0, x1, y1 = box
    outer = (
        max(0, round(x0 * sx) - line),
        max(0, round(y0 * sy) - line),
        min(picture.width - 1, round(x1 * sx) + line),
        min(picture.height - 1, round(y1 * sy) + line),
    )
    ImageDraw.Draw(picture).rectangle(outer, outline=_RED, width=line)
