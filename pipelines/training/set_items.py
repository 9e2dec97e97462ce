"""One item of a training set as a trainer takes it. Items may be anybody's: what breaks the contract is named.

The contract is the one that `ovsops validate-set` proves (`pipelines.training_sets.contract`). A broken region costs
itself alone; what an image cannot do without costs the image. Texts are lower-cased here: the published trainer
lower-cases negatives and not their positive (360CVGroup/FG-CLIP b1af1cd, fgclip2/train/train_fgclip2.py:358-361),
so that case alone would tell them apart.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovsops.errors import RowError
from ovsops.training.fgclip2_sets import SetRegion
from pipelines.training_sets.build import language_of
from pipelines.training_sets.contract import Fault, is_whole, path_faults, shown, text_faults, type_name
from pipelines.validation.items import ItemFields
from pipelines.validation.regions import region_faults


@dataclass(frozen=True, kw_only=True)
class SetItem:
    """What an item says, checked, before its image was looked at."""

    path: str
    """Of the image, below the set's folder; "" where the image came with the item."""
    size_hw: tuple[int, int] | None
    """Height and width in pixels where the item says them."""
    language: str
    caption_short: str
    caption_long: str
    regions: tuple[SetRegion, ...]
    broken: tuple[Fault, ...]
    """The first fault of each region that is left out."""


def read_item(item: object, fields: ItemFields) -> SetItem:
    """An item by the field names of its format. Raises RowError with the code of the first rule that it breaks."""
    if not isinstance(item, dict):
        raise RowError("E_TYPE", f"{type_name(item)}, expected an object")
    path = ""
    if fields.path:
        _refuse(path_faults(_get(item, fields.path), fields.path))
        path = item[fields.path]
    long, short = (_text(item, name) for name in (fields.caption, fields.short_caption))
    given = _get(item, fields.regions)
    if not isinstance(given, list):
        raise RowError("E_TYPE", f"{fields.regions}: {type_name(given)}, expected a list")
    regions, broken = [], []
    for number, region in enumerate(given):
        cleaned = _lowered(region)
        faults = _region_faults(cleaned, f"{fields.regions}[{number}]", fields)
        if faults is not None:
            broken.append(faults)
        else:
            regions.append(_region(cleaned))
    return SetItem(
        path=path,
        size_hw=_size_hw(item),
        language=_language(item, short, fields),
        caption_short=short,
        caption_long=long,
        regions=tuple(regions),
        broken=tuple(broken),
    )


def image_code(fault: Fault) -> str:
    """Code of a fault that costs an image: `E_BOX_RANGE` for the rule `box_range`."""
    return f"E_{fault.rule.upper()}"


def region_code(fault: Fault) -> str:
    """Code of a fault that costs a region: `R_NEGATIVES_COUNT`."""
    return f"R_{fault.rule.upper()}"


def _refuse(faults: Any) -> None:
    for fault in faults:
        raise RowError(image_code(fault), f"{fault.field}: {fault.message}")


def _get(item: Mapping[str, Any], name: str) -> Any:
    if name not in item:
        raise RowError("E_FIELD", f"{name} is missing")
    return item[name]


def _text(item: Mapping[str, Any], name: str) -> str:
    text = _get(item, name)
    text = text.lower() if isinstance(text, str) else text
    _refuse(text_faults(text, name))
    return str(text)


def _language(item: Mapping[str, Any], short: str, fields: ItemFields) -> str:
    if fields.is_published:
        return "zh" if "is_cn" in item else "en"
    said = item.get("language", language_of(short))
    if said not in ("en", "zh"):
        raise RowError("E_LANGUAGE", f"language: {shown(said)}, expected en or zh")
    return str(said)


def _size_hw(item: Mapping[str, Any]) -> tuple[int, int] | None:
    height, width = item.get("height"), item.get("width")
    return (height, width) if is_whole(height) and is_whole(width) else None


def _lowered(region: object) -> object:
    """The fields that are learned from, lower case; what else a region holds is not looked at."""
    if not isinstance(region, dict):
        return region
    kept = {name: region[name] for name in ("bbox", "flag_short_neg") if name in region}
    label = region.get("category")
    kept["category"] = label.strip().lower() if isinstance(label, str) else ""
    for name in ("short_expr", "long_expr"):
        if name in region:
            kept[name] = region[name].lower() if isinstance(region[name], str) else region[name]
    if "short_expr_negs" in region:
        given = region["short_expr_negs"]
        if isinstance(given, dict):
            kept["short_expr_negs"] = {
                name: text.lower() if isinstance(text, str) else text for name, text in given.items()
            }
        elif isinstance(given, list):
            kept["short_expr_negs"] = [text.lower() if isinstance(text, str) else text for text in given]
        else:
            kept["short_expr_negs"] = given
    return kept


def _region_faults(region: object, at: str, fields: ItemFields) -> Fault | None:
    if not isinstance(region, dict):
        return Fault("type", at, f"{type_name(region)}, expected an object")
    return next(region_faults(region, None, at, is_published=fields.is_published), None)


def _region(region: Any) -> SetRegion:
    x1, y1, x2, y2 = np.asarray(region["bbox"][:4], np.float32).tolist()  # what every format can hold
    negatives = region.get("short_expr_negs") if region["flag_short_neg"] else None
    texts = negatives.values() if isinstance(negatives, dict) else negatives or ()
    return SetRegion(
        box=(x1, y1, x2, y2),
        short_expr=region["short_expr"],
        long_expr=region["long_expr"],
        negatives=tuple(texts),
        label=region["category"],
    )
