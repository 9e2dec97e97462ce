from importlib import resources
from pathlib import Path

from ovsops.miniature.attributes import CLASS_IDS, NOUNS, STUFF
from ovsops.text.vocabulary import load_vocabulary


def test_the_built_in_vocabulary_is_the_world() -> None:
    path = resources.files("ovsops.text").joinpath("data", "world.yaml")
    vocabulary = load_vocabulary(Path(str(path)))
    assert vocabulary.name == "world"
    assert vocabulary.languages == ("en", "zh")
    assert vocabulary.background == {}
    assert vocabulary.ids == tuple(range(1, 21))
    for spec, word in zip(vocabulary.classes, (*NOUNS, *STUFF), strict=True):
        assert (spec.name, spec.id) == (word.name, CLASS_IDS[word.name])
        assert spec.kind == ("thing" if spec.id <= 12 else "stuff")
        assert vocabulary.prompts_of(spec, "en") == (word.en,)
        assert vocabulary.prompts_of(spec, "zh") == (word.zh,)
    assert vocabulary.templates_of("en") == vocabulary.templates_of("zh") == ("{}",)
