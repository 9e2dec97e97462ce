from collections import Counter

import numpy as np
import pytest

from ovsops.errors import ShapeError, VocabularyError
from ovsops.negatives.candidates import (
    MEANINGS,
    CandidateNegatives,
    RegionContext,
    Validator,
    choose_ten,
    count_drops,
    same_place,
    validate_all,
)
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.lexicon import Language
from ovsops.negatives.sampler import Negatives, fit_sampler
from ovsops.negatives.validators import LabelRules, LabelValidator, TextValidator
from ovsops.text.vocabulary import ClassSpec, Vocabulary


def candidates(
    positive: str, *texts: str, language: Language = "en", kind: str = "colour"
) -> CandidateNegatives:
    return CandidateNegatives(
        key="r",
        positive=positive,
        language=language,
        texts=texts,
        types=(kind,) * len(texts),
        sources=("rule",) * len(texts),
    )


def reason(positive: str, text: str, language: Language = "en", **context) -> str | None:
    validator = TextValidator()
    assert isinstance(validator, Validator)
    ((found,),) = validator.validate(
        [candidates(positive, text, language=language)], [RegionContext(**context)]
    )
    assert found is None or found in MEANINGS
    return found


@pytest.mark.parametrize(
    ("positive", "text", "expected"),
    [
        ("a big red ball", "a small red ball", None),
        ("a big red ball", "a big blue ball", None),
        ("a big red ball", "a big red box", None),
        ("a big red ball", "a big red zeppelin", None),  # no lexicon knows it: for a model to judge
        ("a big red ball", "a large red ball", "V_SYNONYM"),
        ("a big red ball", "a very big red ball", "V_ENTAILED"),
        ("a brown ball", "a tan ball", "V_SYNONYM"),  # people confuse them
        ("a red bicycle", "a red bike", "V_ENTAILED"),
        ("a big red ball", "a red ball", "V_ENTAILED"),
        ("a red big ball", "a big red ball", "V_ENTAILED"),
        ("a red ball", "a red striped ball", "V_OPEN"),
        ("a striped shirt", "a woven shirt", "V_OPEN"),  # may be both
        ("a red ball", "an blue ball", "F_ARTICLE"),
        ("a red ball", "A red ball.", "F_POSITIVE"),
        ("a red ball", "a blue blue ball", "F_DOUBLED"),
        ("a red ball", "a blue\u202e ball", "F_CONTROL"),
        ("a red ball", "蓝色的球", "R_LANGUAGE_MISMATCH"),
        ("a red ball on a blue box", "a blue ball on a blue box", None),
        ("a red ball on a blue box", "a blue ball on a red box", None),  # the same words of other things
        ("a black and white cat", "a dark grey and white cat", "V_SYNONYM"),
        ("a black and white cat", "a beige and white cat", None),  # no word of black
        ("a bench with a wooden seat and metal legs", "a bench with a wooden seat and wooden legs", None),
        ("a black and white cat", "a green and white cat", None),
    ],
)
def test_what_the_words_say(positive: str, text: str, expected: str | None) -> None:
    assert reason(positive, text) == expected


@pytest.mark.parametrize(
    ("positive", "text", "expected"),
    [
        ("大红色的球", "小红色的球", None),
        ("大红色的球", "大蓝色的球", None),
        ("大红色的球", "巨大红色的球", "V_SYNONYM"),
        ("小红色的球", "很小红色的球", "V_ENTAILED"),
        ("大红色的球", "红色的球", "V_ENTAILED"),
    ],
)
def test_chinese(positive: str, text: str, expected: str | None) -> None:
    assert reason(positive, text, "zh") == expected


@pytest.mark.parametrize(
    ("caption", "text", "expected"),
    [
        ("a red ball that is blue", "a blue ball", "V_CAPTION"),
        ("a small dark red ball", "a maroon ball", "V_SYNONYM"),  # red itself may be maroon
        ("an orange ball", "a yellow ball", "V_MAY_HOLD"),
        ("a red ball left of a blue ball", "a blue ball", None),  # the other ball is
        ("a red ball on a blue box", "a blue ball", None),
        ("a white dog", "a white ball", "V_CAPTION"),
        ("蓝色的球", "a blue ball", None),  # another language is not compared
        ("a blue ball", "a blue ball", "V_CAPTION"),
        ("a red ball with a logo", "a green ball", None),
    ],
)
def test_other_captions_of_the_region(caption: str, text: str, expected: str | None) -> None:
    assert reason("a red ball", text, captions=(caption,)) == expected


def test_chinese_captions_go_on_about_other_things() -> None:
    long = "大红色的球在蓝色的盒子左边，背景是草地。"
    assert reason("红色的球", "蓝色的球", "zh", captions=(long,)) is None
    assert reason("红色的球", "蓝色的球", "zh", captions=("大蓝色的球在红色的盒子左边",)) == "V_CAPTION"


def test_what_is_true_of_the_same_place() -> None:
    assert reason("a man", "a dog", neighbours=("a dog on a chair",)) == "V_NEIGHBOUR"
    assert reason("a red ball", "a blue ball", neighbours=("a blue ball",)) == "V_NEIGHBOUR"
    assert reason("a red ball", "a green ball", neighbours=("a blue ball",)) is None


def test_one_false_word_is_enough() -> None:
    # the other caption says blue, and nobody says wooden
    assert reason("a red plastic ball", "a blue glass ball", captions=("a blue plastic ball",)) is None
    assert reason("a red plastic ball", "a blue plastic ball", captions=("a blue ball",)) == "V_CAPTION"


def test_the_second_of_two_equal_texts_goes() -> None:
    each = candidates("a red ball", "a blue ball", "A blue ball.", "a green ball")
    assert TextValidator().validate([each], [RegionContext()]) == [[None, "F_DUPLICATE", None]]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_negatives_by_rule_are_kept(language: Language) -> None:
    """No false alarms on what the sampler makes, as it knows the same exclusions."""
    texts = {
        "en": ["a small red ball", "a striped wooden chair with a black seat", "two white cats sitting"],
        "zh": ["小红色的球", "一个条纹木制椅子", "两只白色的猫"],
    }[language]
    sampler = fit_sampler(CorpusSample())
    made = [sampler.negatives_for(text, language, key=text) for text in texts]
    each = [
        CandidateNegatives(
            key=answer.positive,
            positive=answer.positive,
            language=language,
            texts=answer.negatives,
            types=answer.types,
            sources=("rule",) * 10,
        )
        for answer in made
        if isinstance(answer, Negatives)
    ]
    assert each
    found = validate_all([TextValidator()], each, [RegionContext()] * len(each))
    assert count_drops(found) == Counter()
    assert all(choose_ten(one.kept) == one.kept for one in found)


def rules(**fields) -> LabelRules:
    names = {"dog": "dog", "puppy": "dog", "animal": "animal", "cat": "cat", "树": "tree", "树叶": "leaf"}
    return LabelRules(names=names, parents={"dog": "animal", "cat": "animal"}, **fields)


@pytest.mark.parametrize(
    ("text", "labels", "contested", "expected"),
    [
        ("a red cat", ("dog",), (), None),
        ("a red cat", ("dog", "cat"), (), "V_LABEL"),
        ("two red cats", ("dog", "cat"), (), "V_LABEL"),
        ("a red cat", ("dog",), ("cat",), "V_CONTESTED"),
        ("a red animal", ("dog",), (), "V_MAY_HOLD"),
        ("a blue dog", ("dog",), (), None),  # the positive names it, too
        ("a red caterpillar", ("dog", "cat"), (), None),
        ("树叶", ("tree",), (), None),
        ("一棵树", ("tree",), (), "V_LABEL"),
    ],
)
def test_labels(text: str, labels: tuple[str, ...], contested: tuple[str, ...], expected: str | None) -> None:
    validator = LabelValidator(rules())
    assert isinstance(validator, Validator)
    context = RegionContext(labels=labels, contested=contested)
    assert validator.validate([candidates("a red dog", text)], [context]) == [[expected]]


def test_where_only_exclusive_groups_exclude() -> None:
    context = RegionContext(labels=("dog",))
    one = candidates("a red dog", "a red cat")
    loose = LabelValidator(rules(only_exclusive=True))
    grouped = LabelValidator(rules(only_exclusive=True, exclusive=(frozenset({"dog", "cat"}),)))
    assert loose.validate([one], [context]) == [["V_MAY_HOLD"]]
    assert grouped.validate([one], [context]) == [[None]]


def test_rules_of_a_vocabulary() -> None:
    classes = (
        ClassSpec(id=1, name="animal"),
        ClassSpec(id=2, name="dog", parent="animal", prompts={"en": ("dog", "puppy"), "zh": ("狗",)}),
    )
    vocabulary = Vocabulary(
        name="v", languages=("en", "zh"), classes=classes, exclusive=(), templates={"en": "plain"}
    )
    found = LabelRules.of_vocabulary(vocabulary)
    assert found.names["puppy"] == found.names["狗"] == "dog"
    assert found.may_hold("animal", "dog")
    both = (*classes, ClassSpec(id=3, name="seal", prompts={"en": ("puppy",)}))
    shared = Vocabulary(name="v", languages=("en", "zh"), classes=both)
    with pytest.raises(VocabularyError, match="'puppy' names dog and seal"):
        LabelRules.of_vocabulary(shared)


class Says:
    """Drops by a table; notes what it saw."""

    def __init__(self, reasons: dict[str, str]) -> None:
        self.reasons = reasons
        self.seen: list[str] = []

    def validate(self, candidates, contexts):
        self.seen += [text for each in candidates for text in each.texts]
        return [[self.reasons.get(text) for text in each.texts] for each in candidates]


def test_the_first_reason_counts_and_later_ones_see_what_is_left() -> None:
    first, second = Says({"a": "V_LABEL"}), Says({"a": "V_MARGIN", "c": "V_MARGIN", "d": "V_MARGIN"})
    rows = [candidates("p", "a", "b", "c"), candidates("q", "d"), candidates("r")]
    found = validate_all([first, second, Says({})], rows, [RegionContext()] * 3)
    assert second.seen == ["b", "c", "d"]
    assert [each.reasons for each in found] == [("V_LABEL", None, "V_MARGIN"), ("V_MARGIN",), ()]
    assert [each.kept.texts for each in found] == [("b",), (), ()]
    assert count_drops(found) == {"V_LABEL": 1, "V_MARGIN": 2}
    with pytest.raises(ShapeError, match="3 regions with 1 contexts"):
        validate_all([first], rows, [RegionContext()])


def test_ten_or_none_and_no_type_too_often() -> None:
    texts = tuple(f"a {i}" for i in range(14))
    kinds = ("colour",) * 9 + ("material",) * 5
    each = CandidateNegatives(
        key="r", positive="p", language="en", texts=texts, types=kinds, sources=("llm",) * 14
    )
    ten = choose_ten(each)
    assert ten is not None
    assert ten.texts == texts[:10]
    balanced = choose_ten(each, max_of_type=5)
    assert balanced is not None
    assert Counter(balanced.types) == {"colour": 5, "material": 5}
    assert choose_ten(each, max_of_type=4) is None
    with pytest.raises(ShapeError, match="1 negatives, 2 types"):
        CandidateNegatives(
            key="r", positive="p", language="en", texts=("a",), types=("b", "c"), sources=("rule",)
        )


def test_boxes_on_the_same_place() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [5, 5, 15, 15], [3, 3, 3, 9]], np.float32)
    assert same_place(boxes) == [[1], [0], [], []]
    assert same_place(boxes, min_iou=0.1) == [[1, 2], [0, 2], [0, 1], []]
    assert same_place(np.zeros((0, 4), np.float32)) == []
