"""What users hand to a backbone, checked at its door. Annotations are checked in tests alone: without these checks what
does not fit ends in an error of a library, many calls deeper, or in a number that means nothing.

Axes: R boxes, h w pixels.
"""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor

from ovsops.errors import ShapeError

_RGB = "RGB in 0..255 is expected, a numpy array of uint8 [h w 3]"


def check_images(images: Any) -> None:
    """Raise `ShapeError` unless these are images in a row, each RGB in 0..255; none at all are fine."""
    if not isinstance(images, Collection) or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise ShapeError(
            f"images: {_told(images)}; a list of images is expected, [image] for a single one; {_RGB}"
        )
    for place, image in enumerate(images):
        check_image(image, what=f"image {place} of {len(images)}")


def check_image(image: Any, *, what: str = "image") -> None:
    """Raise `ShapeError` unless this is an image, RGB in 0..255; `what` names it."""
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.shape[2:] == (3,):
        return
    raise ShapeError(f"{what}: {_told(image)}; {_RGB}: {', then '.join(_ways_out(image))}")


def box_tensor(boxes_xyxy: Any) -> Num[Tensor, "R 4"]:
    """Boxes as a tensor; an empty list is no boxes. Raises `ShapeError` for what has not four columns of numbers."""
    expected = "four columns of numbers are expected, x1, y1, x2, y2 in pixels"
    try:
        boxes = torch.as_tensor(boxes_xyxy)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ShapeError(f"boxes: {_told(boxes_xyxy)}; {expected} ({error})") from error
    if boxes.shape == (0,):
        return boxes.new_zeros((0, 4))
    told = _told(boxes_xyxy if isinstance(boxes_xyxy, np.ndarray) else boxes)
    if boxes.ndim == 1:
        raise ShapeError(f"boxes: {told}; {expected}: a single box goes into a list, [box]")
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        rest = ": boxes[:, :4] leaves out a score" if boxes.ndim == 2 and boxes.shape[1] > 4 else ""
        raise ShapeError(f"boxes: {told}; {expected}{rest}")
    if boxes.dtype == torch.bool or boxes.is_complex():
        raise ShapeError(f"boxes: {told}; {expected}")
    return boxes


def _told(given: Any) -> str:
    kind = type(given).__name__
    if isinstance(given, np.ndarray | Tensor):
        return f"{kind} of {str(given.dtype).removeprefix('torch.')} and shape {tuple(given.shape)}"
    return f"of type {kind}"


def _ways_out(image: Any) -> Iterator[str]:
    """How the usual others become RGB."""
    if not isinstance(image, np.ndarray):
        yield (
            "np.asarray(picture.convert('RGB')) makes one of a Pillow picture, decode_image of ovsops.images.decode one"
            " of a file's bytes, tensor.numpy() one of a tensor"
        )
        return
    if image.ndim == 2:
        yield "np.stack([grey] * 3, axis=-1) makes one of a grey image"
    elif image.ndim == 4:
        yield "give the images of a batch one by one, list(batch)"
    elif image.ndim == 3 and image.shape[2] == 1:
        yield "np.repeat(grey, 3, axis=2) makes one of a grey image"
    elif image.ndim == 3 and image.shape[2] == 4:
        yield "image[..., :3] leaves out the fourth channel (lay transparent pictures on a colour before)"
    elif image.ndim == 3 and image.shape[0] == 3 and image.shape[2] != 3:
        yield "image.transpose(1, 2, 0) puts the channels last"
    elif image.shape[2:] != (3,):
        yield "decode_image of ovsops.images.decode makes one of a file's bytes"
    if image.dtype == bool or np.issubdtype(image.dtype, np.floating):
        yield "(255 * image).round().astype(np.uint8) makes one of values in 0..1"
    elif image.dtype != np.uint8:
        yield "image.astype(np.uint8) makes one of whole numbers in 0..255"
