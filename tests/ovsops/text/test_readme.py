"""The vocabulary that the README shows is one."""

import re
from pathlib import Path

import yaml

from ovsops.text.vocabulary import Vocabulary


def test_the_vocabulary_of_the_readme_can_be_read() -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text("utf-8")
    (shown,) = (block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "classes:" in block)
    vocabulary = Vocabulary.from_mapping(yaml.safe_load(shown))
    assert vocabulary.ids == (1, 2)
    assert vocabulary.prompts_of(vocabulary.classes[0], "zh") == ("集装箱船",)
