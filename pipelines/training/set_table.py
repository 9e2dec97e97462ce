"""A set as programs learn from it: rows of `pipelines.training.sets`, pictures when they are wanted. Axes: N images."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Int64, UInt8

from ovsops.errors import RowError, TrainingError
from ovsops.training.fgclip2_sets import SetImage, SetRegion
from pipelines.training.set_images import SetImages


class SetTable:
    """A `SetBank` over a table of `SET_ROW`."""

    def __init__(self, table: pa.Table, images: SetImages) -> None:
        self.table, self.images = table.combine_chunks(), images
        self.languages: tuple[str, ...] = tuple(table.column("language").to_pylist())
        sides = [table.column(name).to_numpy() for name in ("height", "width")]
        self.sizes_hw: Int64[np.ndarray, "N 2"] = np.stack(sides, axis=1).astype(np.int64)

    @property
    def is_labelled(self) -> bool:
        """Whether every region has a label."""
        labels = pc.struct_field(self.table.column("regions").combine_chunks().flatten(), "label")
        return bool(pc.all(pc.not_equal(labels, ""), min_count=0).as_py())

    def image(self, place: int) -> SetImage:
        """Texts and boxes of one image."""
        short, long, regions = (
            self._value(name, place) for name in ("caption_short", "caption_long", "regions")
        )
        return SetImage(
            caption_short=short,
            caption_long=long,
            regions=tuple(
                SetRegion(
                    box=tuple(region["box"]),
                    short_expr=region["short_expr"],
                    long_expr=region["long_expr"],
                    negatives=tuple(region["negatives"]),
                    label=region["label"],
                )
                for region in regions
            ),
        )

    def pixels(self, place: int) -> UInt8[np.ndarray, "_h _w 3"]:
        """Its picture. TrainingError where it was whole when the set was read and is not now."""
        try:
            data = self._value("data", place)
            return self.images.pixels(self.images.read(self._value("path", place)) if data is None else data)[
                0
            ]
        except RowError as error:
            raise TrainingError(
                f"image {place} of the set cannot be read any more: {error.code}: {error}; restore it, and run the "
                "same recipe again to go on"
            ) from error

    def _value(self, name: str, place: int) -> Any:
        return self.table.column(name)[place].as_py()
