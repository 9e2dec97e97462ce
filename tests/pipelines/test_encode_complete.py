"""What is still said of a class once masks are cut."""

from collections import Counter

from pipelines.stages.encode import still_complete


def test_a_class_is_exhaustive_only_with_as_many_regions_as_boxes() -> None:
    boxes, rows = Counter({1: 2, 2: 1, 3: 1}), Counter({1: 2, 2: 0, 3: 2})
    assert still_complete([1, 2, 3, 4], boxes, rows, is_absent=False) == [1, 4]


def test_a_class_with_a_region_is_not_absent() -> None:
    assert still_complete([1, 2], Counter(), Counter({2: 1}), is_absent=True) == [1]
