"""One of a thing is not many of it."""

import pytest

from pipelines.counted import agreeing, counted, of_one
from pipelines.exporters.report import MEANING


@pytest.mark.parametrize(
    ("number", "phrase", "says"),
    [
        (1, "shards", "1 shard"),
        (0, "shards", "0 shards"),
        (2, "shards", "2 shards"),
        (1, "damaged shards", "1 damaged shard"),
        (1, "classes", "1 class"),
        (1, "boxes", "1 box"),
        (1, "images have no known licence", "1 image has no known licence"),
        (1, "masks have no pixel and were left out", "1 mask has no pixel and was left out"),
        (1, "regions were left out with their images", "1 region was left out with their images"),
        (1, "labels leave", "1 label leaves"),
        (1, "matched labels", "1 matched label"),
        (1, "lines", "1 line"),
        (1, "strata", "1 stratum"),
        (1, "words without a rule", "1 words without a rule"),
        (11, "images", "11 images"),
    ],
)
def test_counted(number: int, phrase: str, says: str) -> None:
    assert counted(number, phrase) == says


def test_a_number_is_written_as_it_was() -> None:
    assert counted(1000, "images", "1,000") == "1,000 images"


@pytest.mark.parametrize(
    ("template", "fields", "says"),
    [
        ("{n} shards are not done", {"n": "1"}, "{n} shard is not done"),
        ("{n} shards are not done", {"n": "21"}, "{n} shards are not done"),
        ("{n} regions of {k} classes", {"n": "3", "k": 1}, "{n} regions of {k} class"),
        ("of {n} images", {"n": 1}, "of {n} image"),
        ("{rate} images/s", {"rate": "1"}, "{rate} images/s"),
        ("{share} of the regions", {"share": "1"}, "{share} of the regions"),
        ("{n} more images did not fit", {"n": 1}, "{n} more image did not fit"),
    ],
)
def test_sentences_agree_with_their_fields(template: str, fields: dict[str, object], says: str) -> None:
    assert agreeing(template, fields) == says


def test_what_an_export_says_of_one_has_a_noun_that_is_known() -> None:
    plural = [
        code for code, text in MEANING.items() if of_one(text.replace("`", "")) == text.replace("`", "")
    ]
    assert plural == []
