"""Vocabularies: what loads, what is refused, and with which words."""

import pickle
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import VocabularyError
from ovsops.text.names import canonical_name
from ovsops.text.vocabulary import ClassSpec, Vocabulary, check_append_only, load_vocabulary

GOOD = """
name: zoo
languages: [en, zh]
templates: {en: talk2dino_7, zh: ["一张{}的照片。"]}
background: {en: [background]}
exclusive: [[cat, dog]]
classes:
  - {id: 3, name: cat, group: animal, prompts: {en: [cat, kitten], zh: 猫}, negative_prompts: {en: [fox]}}
  - {id: 7, name: dog, parent: cat, prompts: {zh: [狗]}}
  - {id: 90, name: sky, kind: stuff}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    def write_file(text: str) -> Path:
        path = tmp_path / "vocabulary.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write_file


def vocabulary(*classes: ClassSpec, **fields: Any) -> Vocabulary:
    defaults: dict[str, Any] = {"name": "v", "languages": ("en", "zh"), "classes": classes}
    return Vocabulary(**(defaults | fields))


def test_a_file_loads_as_it_says(write: Callable[[str], Path]) -> None:
    zoo = load_vocabulary(write(GOOD))
    assert zoo.ids == (3, 7, 90)
    assert zoo.by_id[3].prompts == {"en": ("cat", "kitten"), "zh": ("猫",)}
    assert zoo.by_name["sky"].kind == "stuff"
    assert zoo.by_name["dog"].parent == "cat"
    assert zoo.exclusive == (("cat", "dog"),)
    assert zoo.templates_of("zh") == ("一张{}的照片。",)
    assert len(zoo.templates_of("en")) == 7
    assert zoo.name_language == "en"


def test_a_class_is_prompted_by_its_name_only_in_the_language_of_the_names(
    write: Callable[[str], Path],
) -> None:
    zoo = load_vocabulary(write(GOOD))
    assert zoo.prompts_of(zoo.by_name["dog"], "en") == ("dog",)
    assert zoo.prompts_of(zoo.by_name["sky"], "zh") == ()


def test_an_empty_list_says_not_prompted_in_that_language() -> None:
    spec = ClassSpec(id=1, name="猫", prompts={"en": (), "zh": ("猫",)})
    assert vocabulary(spec).prompts_of(spec, "en") == ()


def test_languages_without_templates_get_their_default() -> None:
    v = Vocabulary(name="v", languages=("en", "zh", "de"), classes=(ClassSpec(id=1, name="cat"),))
    assert v.templates == {"en": "imagenet_80", "zh": "zh_photo_12", "de": "plain"}


def test_plain_data_and_pickle_give_an_equal_vocabulary(write: Callable[[str], Path]) -> None:
    zoo = load_vocabulary(write(GOOD))
    assert Vocabulary.from_mapping(zoo.to_mapping()) == zoo
    assert pickle.loads(pickle.dumps(zoo)) == zoo


@pytest.mark.parametrize("name", ["coco_80", "photos"])
def test_shipped_vocabularies_load_in_both_languages(name: str) -> None:
    with resources.as_file(resources.files("ovsops.text").joinpath("data", f"{name}.yaml")) as path:
        shipped = load_vocabulary(path)
    assert shipped.languages == ("en", "zh")
    for spec in shipped.classes:
        assert shipped.prompts_of(spec, "en")
        assert all("\u4e00" <= c <= "\u9fff" for prompt in shipped.prompts_of(spec, "zh") for c in prompt)


def test_coco_keeps_its_sparse_ids() -> None:
    with resources.as_file(resources.files("ovsops.text").joinpath("data", "coco_80.yaml")) as path:
        coco = load_vocabulary(path)
    # The ten ids of COCO 2017 that no published instance has.
    assert sorted(set(range(1, 91)) - set(coco.ids)) == [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert coco.by_id[90].name == "toothbrush"
    assert coco.by_id[44].name == "bottle"


def _edited(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (_edited("classes:", "klasses:"), r"unknown field 'klasses' \(did you mean 'classes'\?\)"),
        (
            _edited("group: animal", "gruop: animal"),
            r"class no. 1 \(id 3, 'cat'\): unknown field 'gruop'.*'group'",
        ),
        (_edited("id: 7", "id: 0"), "class 0 'dog': field 'id' must be 1 to"),
        (_edited("id: 7", "id: 3"), "class 3 'dog': id 3 is taken by 'cat'"),
        (_edited("id: 7", "id: seven"), "field 'id' must be a whole number; got str 'seven'"),
        (_edited("id: 7", "id: true"), "field 'id' must be a whole number; got bool"),
        (_edited("name: dog", "name: ' CAT '"), "is empty or has spaces around it"),
        (_edited("name: dog", "name: CAT"), "class 7 'CAT': the name equals that of class 3 'cat'"),
        (_edited("name: dog", "name: no"), "field 'name' must be text; got bool.*quotes"),
        (_edited("name: dog", "name: dog."), "ends with a full stop"),
        (_edited("parent: cat", "parent: kat"), "parent 'kat' is no class .did you mean 'cat'"),
        (_edited("parent: cat", "parent: dog"), "class 7 'dog' is its own ancestor: dog -> dog"),
        (_edited("kind: stuff", "kind: stuf"), "field 'kind' is 'stuf'; write thing or stuff"),
        (_edited("[[cat, dog]]", "[[cat, wolf]]"), "'exclusive' names 'wolf', which is no class"),
        (_edited("[[cat, dog]]", "[[cat]]"), "two or more different names"),
        (
            _edited("zh: [狗]", "fr: [chien]"),
            r"class 7 'dog'.*'fr', which is not in languages: \['en', 'zh'\]",
        ),
        (_edited("[en, zh]", "[]"), "field 'languages' is empty"),
        (_edited("[en, zh]", "[english, zh]"), "'english' is no language tag"),
        (_edited("talk2dino_7", "talk2dino7"), "no template set 'talk2dino7' .did you mean 'talk2dino_7'"),
        (_edited("一张{}的照片", "一张照片"), "templates of zh: template '一张照片。' has 0 places"),
        (_edited("[cat, kitten]", "[cat, Cat]"), r"prompts' \(en\): a prompt comes twice"),
        (_edited("[fox]", "[kitten]"), "'kitten' is both a prompt and a negative prompt"),
        (_edited("kind: stuff", "prompts: {en: []}"), "class 90 'sky' has no prompts in any language"),
        (GOOD.split("classes:")[0], "there are no classes"),
        (GOOD + "name: again\n", "key 'name' comes twice"),
        (_edited("group: animal", "group: animal, group: pet"), "key 'group' comes twice"),
        ("name: v\nlanguages: [en]\nclasses: [&a {id: 1, name: x}, *a]", "line 3 uses an alias"),
        ("[" * 40 + "]" * 40, "nests deeper than 16 levels"),
        ("name: [", "not usable YAML"),
        ("!!python/object/apply:os.system [true]", "not usable YAML"),
        ("- a list", "expected a mapping"),
        ("", "expected a mapping.*got nothing"),
    ],
)
def test_what_is_wrong_is_named(write: Callable[[str], Path], text: str, message: str) -> None:
    path = write(text)
    with pytest.raises(VocabularyError, match=f"(?s)vocabulary.yaml.*{message}"):
        load_vocabulary(path)


def test_a_huge_file_is_refused(write: Callable[[str], Path]) -> None:
    with pytest.raises(VocabularyError, match="at most 8388608 are read"):
        load_vocabulary(write("#" * (8 * 1024 * 1024 + 1)))


def test_a_missing_or_wrongly_encoded_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"none\.yaml: cannot be read"):
        load_vocabulary(tmp_path / "none.yaml")
    (tmp_path / "gbk.yaml").write_bytes("name: 动物".encode("gbk"))
    with pytest.raises(VocabularyError, match="not UTF-8 at byte 6"):
        load_vocabulary(tmp_path / "gbk.yaml")


def test_a_circle_of_parents_is_drawn() -> None:
    classes = [
        ClassSpec(id=i, name=n, parent=p) for i, (n, p) in enumerate([("a", "b"), ("b", "c"), ("c", "a")], 1)
    ]
    with pytest.raises(VocabularyError, match="a -> b -> c -> a"):
        vocabulary(*classes)


def test_composed_and_decomposed_names_are_the_same_name() -> None:
    with pytest.raises(VocabularyError, match="the name equals that of class 1"):
        vocabulary(ClassSpec(id=1, name="caf\u00e9"), ClassSpec(id=2, name="Cafe\u0301"))


def test_five_thousand_classes_are_fine() -> None:
    big = vocabulary(*(ClassSpec(id=i, name=f"class {i}") for i in range(1, 5001)))
    assert Vocabulary.from_mapping(big.to_mapping()) == big


@given(st.text(max_size=30))
def test_canonical_names_are_stable_and_ignore_case_and_spaces(name: str) -> None:
    canonical = canonical_name(name)
    assert canonical_name(canonical) == canonical
    assert canonical_name(f"  {name} ") == canonical


class TestAppendOnly:
    previous = vocabulary(
        ClassSpec(id=1, name="cat"), ClassSpec(id=5, name="dog"), ClassSpec(id=9, name="sky")
    )

    def check(self, *classes: ClassSpec) -> None:
        check_append_only(self.previous, vocabulary(*classes))

    def test_new_classes_order_and_prompts_may_change(self) -> None:
        self.check(
            ClassSpec(id=9, name="Sky", prompts={"en": ("blue sky",)}),
            ClassSpec(id=1, name="cat"),
            ClassSpec(id=2, name="fox"),
            ClassSpec(id=5, name="dog"),
        )

    @pytest.mark.parametrize(
        ("classes", "message"),
        [
            ([(1, "cat"), (5, "dog")], "class 9 'sky' is gone"),
            ([(1, "cat"), (5, "wolf"), (9, "sky")], "id 5 was 'dog' and is now 'wolf'"),
            ([(1, "dog"), (5, "cat"), (9, "sky")], "'cat' moved from id 1 to 5; 'dog' moved from id 5 to 1"),
        ],
    )
    def test_what_moved_is_named(self, classes: list[tuple[int, str]], message: str) -> None:
        with pytest.raises(VocabularyError, match=message):
            self.check(*(ClassSpec(id=i, name=n) for i, n in classes))

    def test_a_changed_kind_is_named(self) -> None:
        with pytest.raises(VocabularyError, match="class 9 'sky' was thing and is now stuff"):
            self.check(
                ClassSpec(id=1, name="cat"),
                ClassSpec(id=5, name="dog"),
                ClassSpec(id=9, name="sky", kind="stuff"),
            )
