"""Template sets: what is in them, and what is refused."""

from importlib import resources

import pytest

from ovsops.errors import VocabularyError
from ovsops.text.templates import check_templates, fill_template, load_templates, template_set_names


@pytest.mark.parametrize("name", template_set_names())
def test_every_template_has_exactly_one_slot(name: str) -> None:
    for template in load_templates(name):
        assert template.count("{}") == 1
        assert template.replace("{}", "").count("{") == template.replace("{}", "").count("}") == 0


@pytest.mark.parametrize("name", [n for n in template_set_names() if n.rsplit("_", 1)[-1].isdigit()])
def test_a_number_in_a_sets_name_is_its_size(name: str) -> None:
    assert len(load_templates(name)) == int(name.rsplit("_", 1)[-1])


@pytest.mark.parametrize("name", template_set_names())
def test_every_file_starts_with_its_origin(name: str) -> None:
    text = resources.files("ovsops.text").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")
    assert text.startswith("# ")
    assert len(text.splitlines()[0]) > 20


def test_imagenet_sentences_are_the_published_ones() -> None:
    templates = load_templates("imagenet_80")
    assert len(set(templates)) == 80
    # First, second (missing in some copies that circulate with 79) and last of the published list.
    assert templates[:2] == ("a bad photo of a {}.", "a photo of many {}.")
    assert templates[-1] == "a tattoo of the {}."
    assert sum(t.startswith("itap of") for t in templates) == 3


def test_talk2dino_sentences_are_a_subset_of_the_80() -> None:
    assert load_templates("talk2dino_7") == (
        "itap of a {}.",
        "a bad photo of a {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    )
    assert set(load_templates("talk2dino_7")) < set(load_templates("imagenet_80"))


def test_plain_is_the_prompt_itself() -> None:
    assert load_templates("plain") == ("{}",)


def test_chinese_sets_are_chinese_and_nested() -> None:
    for template in load_templates("zh_varied_24"):
        assert any("\u4e00" <= c <= "\u9fff" for c in template)
    assert set(load_templates("zh_photo_12")) < set(load_templates("zh_varied_24"))


def test_braces_in_a_prompt_stay() -> None:
    assert fill_template("a photo of a {}.", "set {1, 2}") == "a photo of a set {1, 2}."


def test_unknown_set_names_the_nearest() -> None:
    with pytest.raises(
        VocabularyError, match=r"no template set 'imagenet80' \(did you mean 'imagenet_80'\?\)"
    ):
        load_templates("imagenet80")


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (["a photo"], "has 0 places"),
        (["{} and {}"], "has 2 places"),
        ([], "no templates"),
        (["a {}.", "a {}."], "comes twice"),
    ],
)
def test_templates_that_cannot_be_filled(templates: list[str], message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        check_templates(templates, where="here")
