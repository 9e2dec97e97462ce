"""A strict reader of FineHARD JSON, written from the list of fields that the published FG-CLIP 2 trainer reads
(360CVGroup/FG-CLIP b1af1cd, fgclip2/train/train_fgclip2.py:241-406), and from nothing of this project.

A file is one list. An item: `caption` (long), `short_caption`, `f_path`, `bbox_info`, and `is_cn` where it is Chinese.
A region: `bbox` (x1 y1 x2 y2 in 0..1, more is not read), `short_expr`, `long_expr`, `flag_short_neg`,
`short_expr_negs`: an object whose values are used in their order. The loss takes a positive and ten negatives.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ITEM = {"caption": str, "short_caption": str, "f_path": str, "bbox_info": list}
REGION = {
    "bbox": list,
    "short_expr": str,
    "long_expr": str,
    "flag_short_neg": int,
    "short_expr_negs": dict,
}


@dataclass(frozen=True)
class Region:
    box: tuple[float, float, float, float]
    texts: tuple[str, str]
    hard_group: tuple[str, ...]
    """The positive and ten negatives, or nothing."""


@dataclass(frozen=True)
class Item:
    image: Path
    captions: tuple[str, str]
    is_chinese: bool
    regions: tuple[Region, ...]


def read_set(folder: Path) -> dict[str, list[Item]]:
    """Items by split. ValueError names the first place that cannot be read."""
    return {
        split: [item for path in sorted((folder / split).glob("*.json")) for item in read_file(path, folder)]
        for split in ("train", "val", "test")
        if (folder / split).is_dir()
    }


def read_file(path: Path, folder: Path) -> list[Item]:
    items = json.loads(path.read_text("utf-8"))
    if not isinstance(items, list):
        raise ValueError(f"{path.name}: no list")
    return [_item(item, f"{path.name}[{number}]", folder) for number, item in enumerate(items)]


def _item(item: Any, where: str, folder: Path) -> Item:
    _check(item, ITEM, where)
    image = folder / item["f_path"]
    if not image.is_file():
        raise ValueError(f"{where}: {item['f_path']} is not there")
    return Item(
        image=image,
        captions=(item["short_caption"].lower(), item["caption"].lower()),
        is_chinese="is_cn" in item,
        regions=tuple(
            _region(region, f"{where}.bbox_info[{number}]") for number, region in enumerate(item["bbox_info"])
        ),
    )


def _region(region: Any, where: str) -> Region:
    _check(region, REGION, where)
    x1, y1, x2, y2 = (float(value) for value in region["bbox"][:4])
    if not (0 <= x1 <= x2 <= 1 and 0 <= y1 <= y2 <= 1):
        raise ValueError(f"{where}: box {region['bbox']} is no x1 y1 x2 y2 in 0..1")
    group: tuple[str, ...] = ()
    if region["flag_short_neg"] == 1:
        negatives = list(region["short_expr_negs"].values())
        if len(negatives) != 10:
            raise ValueError(f"{where}: {len(negatives)} negatives cannot be shaped into 1 + 10 rows")
        group = (region["short_expr"], *(text.lower() for text in negatives))
        if len(set(group)) != 11:
            raise ValueError(f"{where}: a text comes twice")
    elif region["short_expr_negs"]:
        raise ValueError(f"{where}: negatives without the flag")
    return Region(box=(x1, y1, x2, y2), texts=(region["short_expr"], region["long_expr"]), hard_group=group)


def _check(value: Any, fields: dict[str, type], where: str) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: no object")
    for name, kind in fields.items():
        if name not in value:
            raise ValueError(f"{where}: {name} is missing")
        if not isinstance(value[name], kind):
            raise ValueError(f"{where}: {name} is no {kind.__name__}")
