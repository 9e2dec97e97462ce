"""Importers keep ids; what is dumped loads as the same vocabulary."""

import json
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ovsops.errors import VocabularyError
from ovsops.text.importers import (
    dump_vocabulary,
    read_vocabulary,
    vocabulary_from_coco,
    vocabulary_from_lvis,
    vocabulary_from_text,
)
from ovsops.text.vocabulary import ClassSpec, Vocabulary, load_vocabulary

COCO = {
    "categories": [
        {"id": 17, "name": "cat", "supercategory": "animal"},
        {"id": 90, "name": "toothbrush", "supercategory": "indoor"},
        {"id": 200, "name": "rug", "supercategory": "floor", "isthing": 0},
    ]
}
LVIS = {
    "categories": [
        {
            "id": 704,
            "name": "mouse_(computer_equipment)",
            "synset": "mouse.n.04",
            "synonyms": ["mouse_(computer_equipment)", "computer_mouse"],
            "def": "a computer input device",
            "frequency": "f",
        }
    ]
}


def test_coco_keeps_ids_groups_and_kinds() -> None:
    v = vocabulary_from_coco(COCO, name="coco")
    assert [(c.id, c.name, c.group, c.kind) for c in v.classes] == [
        (17, "cat", "animal", "thing"),
        (90, "toothbrush", "indoor", "thing"),
        (200, "rug", "floor", "stuff"),
    ]
    assert v.prompts_of(v.by_id[17], "en") == ("cat",)


def test_ids_from_zero_are_refused_with_the_way_out() -> None:
    document = {"categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}]}
    with pytest.raises(VocabularyError, match=r"start at 0.*import with id_offset=1"):
        vocabulary_from_coco(document, name="v")
    assert vocabulary_from_coco(document, name="v", id_offset=1).ids == (1, 2)


def test_lvis_synonyms_become_prompts() -> None:
    (spec,) = vocabulary_from_lvis(LVIS, name="lvis").classes
    assert spec == ClassSpec(
        id=704,
        name="mouse (computer equipment)",
        prompts={"en": ("mouse (computer equipment)", "computer mouse")},
        synset="mouse.n.04",
        definition="a computer input device",
    )


def test_text_lines_are_numbered_from_one() -> None:
    v = vocabulary_from_text("# pets\ncat: kitten, Cat\n\n狗：小狗，犬\n", name="pets", language="zh")
    assert [(c.id, c.name, c.prompts["zh"]) for c in v.classes] == [
        (1, "cat", ("cat", "kitten")),
        (2, "狗", ("狗", "小狗", "犬")),
    ]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no list 'categories'"),
        ([], "no list 'categories'"),
        ({"categories": []}, "there are no classes"),
        ({"categories": ["cat"]}, "category no. 1 is no object"),
        (
            {"categories": [{"id": "1", "name": "cat"}]},
            "category no. 1: field 'id' must be a whole number; got '1'",
        ),
        ({"categories": [{"id": 1}]}, "category no. 1: field 'name' must be text; got None"),
    ],
)
def test_documents_that_are_no_coco(document: object, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        vocabulary_from_coco(document, name="v")


@pytest.mark.parametrize(
    ("kind", "text"), [("coco", json.dumps(COCO)), ("lvis", json.dumps(LVIS)), ("text", "cat\n")]
)
def test_files_are_read_and_named(tmp_path: Path, kind: str, text: str) -> None:
    path = tmp_path / "mine.any"
    path.write_text(text)
    assert read_vocabulary(path, kind=kind).name == "mine"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(VocabularyError, match=r"x\.json: cannot be read"):
        read_vocabulary(path, kind="coco")
    path.write_text("{")
    with pytest.raises(VocabularyError, match=r"x\.json: not JSON at line 1"):
        read_vocabulary(path, kind="coco")
    with pytest.raises(VocabularyError, match="cannot import kind 'voc'; use coco, lvis or text"):
        read_vocabulary(path, kind="voc")


def reloaded(vocabulary: Vocabulary, folder: Path) -> Vocabulary:
    path = folder / "dumped.yaml"
    path.write_text(dump_vocabulary(vocabulary), encoding="utf-8")
    return load_vocabulary(path)


@pytest.mark.parametrize("name", ["coco_80", "photos"])
def test_shipped_vocabularies_come_back_from_yaml(tmp_path: Path, name: str) -> None:
    with resources.as_file(resources.files("ovsops.text").joinpath("data", f"{name}.yaml")) as path:
        shipped = load_vocabulary(path)
    assert reloaded(shipped, tmp_path) == shipped


def test_imported_vocabularies_come_back_from_yaml(tmp_path: Path) -> None:
    for vocabulary in (vocabulary_from_coco(COCO, name="c"), vocabulary_from_lvis(LVIS, name="l")):
        assert reloaded(vocabulary, tmp_path) == vocabulary


WORDS = st.from_regex(r"[a-zA-Z\u4e00-\u4eff:#'\"{}\[\]&*!|>%@`~,-]{1,12}", fullmatch=True).filter(
    lambda word: word.strip() == word and not word.endswith(".")
)


@given(st.lists(WORDS, min_size=1, max_size=4, unique_by=lambda w: w.casefold()))
def test_any_name_comes_back_from_yaml(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    classes = tuple(ClassSpec(id=10 + i, name=name) for i, name in enumerate(names))
    vocabulary = Vocabulary(name="yes", languages=("en",), classes=classes)
    assert reloaded(vocabulary, tmp_path_factory.getbasetemp()) == vocabulary
