import pytest

from ovsops.miniature.attributes import LANGUAGES, NOUNS
from ovsops.miniature.captions import (
    ATTRIBUTES,
    MAX_TOKENS,
    count_tokens,
    region_long,
    region_phrase,
    scene_caption,
    split_words,
)
from ovsops.miniature.scene import Scene, SceneConfig, Thing, draw_scene
from ovsops.miniature.words import TEMPLATE_SETS, WORDS
from ovsops.text.templates import fill_template, load_templates


def thing(**changes: object) -> Thing:
    fields = {
        "noun": "fish",
        "colour": "orange",
        "pattern": "striped",
        "material": "shiny",
        "size": "big",
        "center_xy": (1.0, 1.0),
        "radius": 30.0,
        "angle_degrees": 0.0,
        "is_mirrored": False,
        "box_xywh": (0, 0, 1, 1),
        "area": 1,
        "hidden_share": 0.0,
    }
    return Thing(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(seed) for seed in range(150)] + [
        draw_scene(seed, SceneConfig(min_things=6)) for seed in range(150)
    ]


class TestPhrase:
    def test_all_attributes(self) -> None:
        assert region_phrase(thing(), "en") == "big orange striped shiny fish"
        assert region_phrase(thing(), "zh") == "大橙色条纹闪亮的鱼"

    def test_chosen_attributes_come_in_the_usual_order(self) -> None:
        assert region_phrase(thing(), "en", ("material", "size")) == "big shiny fish"
        assert region_phrase(thing(), "zh", ("pattern", "colour")) == "橙色条纹鱼"
        assert region_phrase(thing(), "en", ()) == "fish"

    def test_plain_matte_and_medium_go_without_saying(self) -> None:
        quiet = thing(pattern="plain", material="matte", size="medium")
        assert region_phrase(quiet, "en") == "orange fish"
        assert region_phrase(quiet, "zh") == "橙色鱼"

    def test_tree_is_part_of_leaf_in_chinese(self) -> None:
        names = [noun.zh for noun in NOUNS]
        assert "树" in names
        assert "树叶" in names


class TestCaption:
    def test_golden(self) -> None:
        scene = draw_scene(900_002)
        assert [scene_caption(scene, language, "short") for language in LANGUAGES] == [
            "a big red cross and a green moon on stone.",
            "大红色十字和绿色月亮，背景是石头。",
        ]
        assert [scene_caption(scene, language, "long") for language in LANGUAGES] == [
            "a big red striped cross and a green checkered moon on stone;"
            " the red cross is above the green moon.",
            "大红色条纹十字和绿色格子月亮，红色十字在绿色月亮上方，背景是石头。",
        ]

    def test_two_backgrounds(self) -> None:
        scene = draw_scene(900_000)
        assert scene.stuffs == ("sky", "snow")
        assert scene_caption(scene, "en", "short").endswith(" with sky above snow.")
        assert scene_caption(scene, "zh", "short").endswith("，雪地上方是天空。")

    def test_fits_into_64_tokens(self, scenes: list[Scene]) -> None:
        assert MAX_TOKENS == {"en": 60, "zh": 62}
        assert sum(len(scene.things) == 6 for scene in scenes) > 100
        for scene in scenes:
            for language in LANGUAGES:
                for length in ("short", "long"):
                    caption = scene_caption(scene, language, length)
                    assert count_tokens(caption, language) <= MAX_TOKENS[language], caption
                for i in range(len(scene.things)):
                    assert count_tokens(region_long(scene, i, language), language) <= 40

    def test_twelve_things_still_fit(self) -> None:
        for seed in range(20):
            scene = draw_scene(seed, SceneConfig(size=512, min_things=12, max_things=12, max_radius=12))
            assert len(scene.things) > 8
            for language in LANGUAGES:
                assert count_tokens(scene_caption(scene, language, "long"), language) <= MAX_TOKENS[language]

    def test_long_names_every_noun_and_stuff(self, scenes: list[Scene]) -> None:
        for scene in scenes:
            words = split_words(scene_caption(scene, "en", "long"))
            assert {t.noun for t in scene.things} | set(scene.stuffs) <= set(words)

    def test_articles(self, scenes: list[Scene]) -> None:
        assert any(" an orange" in f" {scene_caption(scene, 'en', 'long')}" for scene in scenes)
        assert not any(" a orange" in f" {scene_caption(scene, 'en', 'long')}" for scene in scenes)

    def test_relation_of_a_region(self, scenes: list[Scene]) -> None:
        scene = draw_scene(900_002)
        assert region_long(scene, 0, "en") == "a big red striped cross above a green moon on stone."
        assert region_long(scene, 0, "zh") == "大红色条纹十字在绿色月亮上方，背景是石头。"
        assert region_long(scene, 1, "en") == "a green checkered moon on stone."


class TestWords:
    def test_split(self) -> None:
        assert split_words("A close-up, 圆环 of the Ring.") == [
            "a", "close", "-", "up", ",", "圆", "环", "of", "the", "ring", ".",
        ]  # fmt: skip

    def test_cover_all_texts(self, scenes: list[Scene]) -> None:
        known = set(WORDS)
        assert list(WORDS) == sorted(known)
        for scene in scenes:
            for language in LANGUAGES:
                texts = [scene_caption(scene, language, length) for length in ("short", "long")]
                texts += [region_long(scene, i, language) for i in range(len(scene.things))]
                texts += [region_phrase(t, language, ATTRIBUTES) for t in scene.things]
                assert {word for text in texts for word in split_words(text)} <= known
        for name in TEMPLATE_SETS:
            for template in load_templates(name):
                assert set(split_words(fill_template(template, "tree"))) <= known
