"""Time and memory of instances from thousands of boxes: `python -m benchmarks.instances [--num N] [--side N]`.

One class map of blobs, boxes drawn on it; CPU seconds of one thread and the peak of numpy's memory, one run after a
warm-up. `full` is the worst case: every box covers the whole image.
"""

import argparse
import tracemalloc
from dataclasses import dataclass
from time import process_time
from typing import get_args

import numpy as np
import torch

from ovsops.backbones.detections import Detections
from ovsops.masks.class_map import ClassMap
from ovsops.regions.box_masks import ClassMapMaskConfig, masks_from_boxes, masks_from_class_map
from ovsops.regions.box_owners import Overlap
from ovsops.regions.instances import build_instances
from ovsops.regions.proposals import proposals_from_class_map, proposals_from_scores


@dataclass(frozen=True)
class Named:
    id: int
    kind: str = "thing"


def blobs(side: int, num_classes: int, rng: np.random.Generator) -> ClassMap:
    """A label map whose regions have curved outlines."""
    coarse = torch.from_numpy(rng.random((1, num_classes, 24, 24)).astype(np.float32))
    planes = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")[0]
    best, labels = planes.max(dim=0)
    return ClassMap(labels=(labels + 1).numpy().astype(np.uint16), scores=best.clamp(0, 1).numpy())


def boxes_on(side: int, num: int, share: float, num_classes: int, rng: np.random.Generator) -> Detections:
    """Boxes of sides around `share` of the image's."""
    sides = (share * side * rng.uniform(0.5, 1.5, (num, 2))).clip(4, side)
    corners = rng.uniform(0, 1, (num, 2)) * (side - sides)
    return Detections(
        boxes_xyxy=torch.from_numpy(np.concatenate([corners, corners + sides], axis=1)).float(),
        scores=torch.from_numpy(rng.random(num)).float(),
        labels=torch.from_numpy(rng.integers(0, num_classes, num)),
    )


def measured(name: str, work) -> None:
    start = process_time()
    result = work()
    seconds = process_time() - start
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    print(f"{name:34s} {seconds:8.2f} CPU-s {peak / 1e6:8.0f} MB peak   {result}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--num", type=int, default=5000)
    parser.add_argument("--side", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    classes = [Named(i) for i in range(1, 9)]
    class_map = blobs(args.side, len(classes), rng)
    cases = {"": boxes_on(args.side, args.num, 0.08, len(classes), rng)}
    whole = boxes_on(args.side, args.num, 0.08, len(classes), rng)
    whole.boxes_xyxy[:] = torch.tensor([0.0, 0.0, args.side, args.side])
    cases["full "] = whole
    for case, detections in cases.items():
        for overlap in (*get_args(Overlap), "share"):
            if case and overlap == "share":
                continue
            config = ClassMapMaskConfig(overlap=overlap, no_mask="component")

            def work(config=config, detections=detections) -> str:
                masks = masks_from_class_map(detections, class_map, classes, config)
                return f"{len(build_instances(detections, masks, classes).instances)} instances"

            measured(f"{case}class map, {overlap}", work)

        def alone(detections=detections) -> str:
            masks = masks_from_boxes(detections, class_map.labels.shape)
            return f"{len(build_instances(detections, masks, classes).instances)} instances"

        measured(f"{case}boxes alone", alone)
    measured("proposals, class map", lambda: f"{len(proposals_from_class_map(class_map, classes))} boxes")
    maps = torch.nn.functional.interpolate(torch.rand(1, 171, 8, 8), size=(64, 64), mode="bicubic")[0].clamp(
        0, 1
    )
    measured(
        "proposals, 171 maps of 64x64",
        lambda: f"{len(proposals_from_scores(maps, class_map.labels.shape))} boxes",
    )


if __name__ == "__main__":
    main()
