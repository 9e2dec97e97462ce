"""Chinese negatives that a reader would write: marks, measure words and words of several characters stay whole."""

import pytest

from ovsops.negatives.config import NegativeConfig
from ovsops.negatives.corpus import CorpusSample
from ovsops.negatives.lexicon import ANIMAL, FIXED, PERSON, load_lexicon
from ovsops.negatives.sampler import Negatives, NegativeSampler, Refusal, fit_sampler, parse

NUM_KEYS = 8
PLACES = ("坐在", "站在", "躺在", "趴在", "跪在", "蹲在", "靠在", "倒在", "走在", "跑在", "睡在")
KINDS = {
    kind: {term.surface for term in load_lexicon("zh").types["object"].terms if kind in term.roles}
    for kind in (PERSON, ANIMAL)
}


@pytest.fixture(scope="module")
def names() -> NegativeSampler:
    """Names of things as often as attributes, so that a few keys show them."""
    return fit_sampler(CorpusSample(), NegativeConfig(level="hard", object_weight=1.0))


def negatives(sampler: NegativeSampler, text: str) -> set[str]:
    """Those of several keys; none where the caption is refused."""
    answers = [sampler.negatives_for(text, "zh", key=str(key)) for key in range(NUM_KEYS)]
    return {text for answer in answers if isinstance(answer, Negatives) for text in answer.negatives}


def said(text: str) -> list[tuple[str, str]]:
    return [(slot.type, text[slot.start : slot.end]) for slot in parse(text, "zh").slots]


@pytest.mark.parametrize(
    ("before", "verb", "after"),
    [("三个男人", "坐在", "长椅上"), ("一个女人", "坐在", "沙发上"), ("一头大象", "站在", "河边")],
)
def test_a_verb_before_a_place_stays_before_it(
    names: NegativeSampler, before: str, verb: str, after: str
) -> None:
    made = negatives(names, before + verb + after)
    acting = {text.removeprefix(before).removesuffix(after) for text in made if text.startswith(before)}
    assert len(acting) >= 4
    assert acting <= set(PLACES) - {verb}
    assert all(
        text[text.index("在") - 1 :].startswith(("坐", "站", "躺", "趴", "跪", "蹲", "倒", "走", "跑", "睡"))
        for text in made
    )


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("一个坐在椅子上的男人", "在"),
        ("一个坐着的男人", "着"),
        ("沙发上坐着三个人", "存"),
        ("一只狗坐着看书", "着"),
        ("坐着轮椅的老人", FIXED),
        ("飞机在天空中飞着", FIXED),
        ("床上睡着的猫", "着"),
        ("一个女人拿着雨伞", "物"),
        ("三只猫在睡觉", "动"),
        ("三只猫睡觉了", "动"),
        ("行走在街上的人", "在"),
        ("一个游泳池", None),
        ("公交车站在路边", None),
    ],
)
def test_the_mark_of_an_action(text: str, role: str | None) -> None:
    assert [slot.role for slot in parse(text, "zh").slots if slot.type == "action"] == (
        [role] if role else []
    )


@pytest.mark.parametrize(
    "text",
    "红绿灯 路口的红绿灯 一个红包 一个大红包 一棵白菜 青椒 一块黑板 一块白板 绿茶 红茶 一杯红酒".split()
    + "白酒 一条金鱼 一家银行 石榴 蓝牙 黄油 橙汁 斑马线 一根热狗 北极熊 一辆三轮车 十字路口".split(),
)
def test_words_are_not_cut_up(text: str) -> None:
    assert said(text) == []


def test_words_that_are_whole_leave_others_alone() -> None:
    assert said("红绿灯旁边的红色汽车") == [("colour", "红色"), ("object", "汽车")]
    assert said("红灯下的白手套") == [("colour", "白"), ("object", "手套")]
    assert said("一台冰箱") == [("object", "冰箱")]


@pytest.mark.parametrize(
    "text", ["红红的苹果", "白白的苹果", "雪白的苹果", "墨绿色的苹果", "蓝绿色的苹果", "黑白的苹果"]
)
def test_doubled_and_tinted_colours_stay(text: str) -> None:
    assert said(text) == [("object", "苹果")]


def test_a_measure_word_apart_from_its_noun_still_counts_it(names: NegativeSampler) -> None:
    (woman,) = parse("一名骑马的女人", "zh").slots
    kind = load_lexicon("zh").types["object"]
    fits = {kind.terms[place].surface for place in kind.roles[woman.role].nonzero()[0]}
    assert {"男子", "女子", "男孩", "警察"} <= fits
    assert not fits & {"苹果", "狗", "男人", "杯子"}
    assert parse("一个穿白衬衫的男人", "zh").slots[1].role == FIXED
    for text in negatives(names, "一张放在院子里的红色桌子"):
        assert any(text.endswith(noun) for noun in ("桌子", "椅子", "长椅", "沙发", "床", "报纸", "地毯")), (
            text
        )


def test_who_acts_is_an_animal_or_a_person(names: NegativeSampler) -> None:
    for text in negatives(names, "三只猫在睡觉"):
        assert any(animal in text for animal in KINDS[ANIMAL]), text
    persons = negatives(names, "一个男孩骑着红色的自行车")
    assert any("男孩" not in text for text in persons)
    assert all(any(person in text for person in KINDS[PERSON]) for text in persons)
    assert not any(person in text for text in negatives(names, "一个红色的苹果") for person in KINDS[PERSON])


def test_ge_stands_before_things_that_it_counts(names: NegativeSampler) -> None:
    made = negatives(names, "一个玻璃杯")
    assert made
    for wrong in ("椅子", "桌子", "沙发", "电话", "手机", "电视", "帽子", "灯", "叉子", "勺子", "扳手"):
        assert f"一个{wrong}" not in made


def test_synonyms_are_one_of_ten() -> None:
    sample = CorpusSample()
    for i, name in enumerate(
        ["车", "汽车", "轿车", "小汽车", "杯", "杯子", "玻璃杯", "水杯", "椅子", "桌子"] * 30
    ):
        sample.add(f"红色的{name}", "zh", str(i))
    sampler = fit_sampler(sample, NegativeConfig(level="hard", object_weight=1e6, max_iterations=25))
    types = load_lexicon("zh").types
    for key in range(NUM_KEYS):
        answer = sampler.negatives_for("红色的花", "zh", key=str(key))
        assert isinstance(answer, Negatives)
        values = [
            (slot.type, types[slot.type].terms[slot.term].value)
            for text in answer.negatives
            for slot in parse(text, "zh").slots
        ]
        assert sum(value == ("object", "汽车") for value in values) == 1
        assert sum(value == ("object", "杯子") for value in values) == 1
        assert not {"红色的车", "红色的杯"} & set(answer.negatives)


def test_verbs_in_another_mark_are_the_same_value() -> None:
    sample = CorpusSample()
    for i, text in enumerate(["三个男人站着", "三个男人站在河边", "三个男人坐着", "三个男人躺在床上"]):
        sample.add(text, "zh", str(i))
    sampler = fit_sampler(sample, NegativeConfig(level="hard", max_iterations=25))
    answer = sampler.negatives_for("三个男人坐在长椅上", "zh")
    assert isinstance(answer, Negatives)
    assert not any("着" in text for text in answer.negatives)


def test_too_few_verbs_and_names_are_a_refusal(names: NegativeSampler) -> None:
    assert names.negatives_for("一名骑马的女人", "zh") == Refusal(reason="R_TOO_FEW_VALUES")


@pytest.mark.parametrize("text", ["二十三个气球", "三四个气球", "一两个气球", "第三个气球"])
def test_part_of_a_number_is_no_count(text: str) -> None:
    assert said(text) == [("object", "气球")]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("不是红色的汽车", "R_NEGATION"),
        ("非金属的杯子", "R_NEGATION"),
        ("没有盖子的红色杯子", "R_NEGATION"),
        ("未上漆的木质椅子", "R_NEGATION"),
        ("并非木质的椅子", "R_NEGATION"),
        ("除了红色的球以外的蓝色物品", "R_NEGATION"),
        ("除红色之外的杯子", "R_NEGATION"),
        ("一个红色或蓝色的球", "R_ALTERNATIVE"),
        ("红色或者蓝色的球", "R_ALTERNATIVE"),
        ("红色还是蓝色的球", "R_ALTERNATIVE"),
        ("至少三个红色的球", "R_ALTERNATIVE"),
    ],
)
def test_what_is_denied_or_left_open(names: NegativeSampler, text: str, reason: str) -> None:
    assert names.negatives_for(text, "zh") == Refusal(reason=reason)


@pytest.mark.parametrize(
    "text",
    "一个不锈钢的杯子 一个红色的不倒翁 一头灰色的非洲象 一架白色的无人机 一个黑色的无线鼠标 一颗紫色的无花果".split()
    + "一只灰色的无尾熊 一辆红色的除雪车 一辆银色的未来汽车 一个不透明的塑料瓶子 一条黑色的无袖裙子".split(),
)
def test_words_that_only_look_like_denials(names: NegativeSampler, text: str) -> None:
    assert isinstance(names.negatives_for(text, "zh"), Negatives)
