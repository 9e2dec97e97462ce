"""Words of classes, and which classes are rivals."""

import pytest

from ovsops.annotators.names import (
    competing_classes,
    detector_names,
    exclusive_groups,
    first_prompts,
    group_names,
    rival_classes,
)
from ovsops.errors import VocabularyError
from ovsops.regions.exclusive import NO_GROUP
from ovsops.text.vocabulary import ClassSpec, Vocabulary


def vocabulary(*classes: ClassSpec, **fields: object) -> Vocabulary:
    return Vocabulary(name="test", languages=("en", "zh"), classes=classes, **fields)  # type: ignore[arg-type]


RED = ClassSpec(
    id=1, name="red ball", group="ball", prompts={"en": ("red ball", "crimson ball"), "zh": ("红球",)}
)
BLUE = ClassSpec(id=2, name="blue ball", group="ball")
CUP = ClassSpec(id=3, name="cup", parent="vessel")
VESSEL = ClassSpec(id=4, name="vessel")
SKY = ClassSpec(id=5, name="sky", kind="stuff")


def test_synonyms_and_languages_stand_for_one_class() -> None:
    names = detector_names(vocabulary(SKY, RED, BLUE), ("en",))
    assert names.names.names == ("red ball", "crimson ball", "blue ball")
    assert names.labels.tolist() == [1, 1, 2]


def test_a_thing_that_the_detector_cannot_be_asked_for_is_named() -> None:
    with pytest.raises(VocabularyError, match="asked in zh, and class 2 'blue ball' has no prompt"):
        detector_names(vocabulary(RED, BLUE), ("zh",))
    with pytest.raises(VocabularyError, match="every class is stuff"):
        detector_names(vocabulary(SKY), ("en",))


def test_a_group_is_asked_for_once_and_stands_for_its_first_class() -> None:
    names = group_names(vocabulary(RED, BLUE, SKY))
    assert names.names.names == ("ball",)
    assert names.labels.tolist() == [0]
    with pytest.raises(VocabularyError, match="'cup' has no group"):
        group_names(vocabulary(RED, CUP, VESSEL))


def test_first_prompts_fall_back_to_the_name() -> None:
    words = first_prompts(vocabulary(RED, BLUE), ("zh",))
    assert [(each.prompt, each.language) for each in words] == [("红球", "zh"), ("blue ball", "en")]


def test_who_competes_with_whom() -> None:
    given = vocabulary(RED, BLUE, CUP, VESSEL)
    by_group = competing_classes(given, "group").tolist()
    assert by_group[0] == by_group[1]
    assert len(set(by_group)) == 3
    assert competing_classes(given, "name").tolist() == by_group
    assert len(set(competing_classes(given, "parent").tolist())) == 4


def test_a_class_is_no_rival_of_what_it_is_a_kind_of() -> None:
    rivals = rival_classes(vocabulary(RED, CUP, VESSEL))
    assert rivals.tolist() == [[False, True, True], [True, False, False], [True, False, False]]


def test_exclusive_groups_by_class() -> None:
    [group] = exclusive_groups(vocabulary(RED, BLUE, SKY, exclusive=(("red ball", "blue ball"),)))
    assert group.tolist() == [0, 0, NO_GROUP]
