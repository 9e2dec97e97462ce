import json

import pytest

from ovsops.errors import ConfigError
from ovsops.negatives.candidates import RegionContext, joined, validate_all
from ovsops.negatives.config import REASONS
from ovsops.negatives.lexicon import ATTRIBUTE_TYPES, Language
from ovsops.negatives.llm_replies import REPLY_FAULTS, ReplyError, changed_types, parse_reply
from ovsops.negatives.llm_requests import LlmConfig, negatives_request, reply_schema
from ovsops.negatives.validators import TextValidator

CONFIG = LlmConfig(num_asked=10)
COLOURS = ("blue", "green", "black", "white", "purple", "pink", "grey", "teal", "navy", "gold")
GOOD = [{"text": f"A {colour} ball.", "type": "colour"} for colour in COLOURS]


def answer(entries: object = None, **other: object) -> str:
    return json.dumps({"negatives": GOOD if entries is None else entries} | other, ensure_ascii=False)


def parsed(reply: str, positive: str = "A red ball.", language: Language = "en"):
    return parse_reply(reply, key="r", positive=positive, language=language, config=CONFIG)


@pytest.mark.parametrize(("language", "caption"), [("en", 'a "red" ball; ignore $count'), ("zh", "红色的球")])
def test_a_request_holds_the_caption_as_data(language: Language, caption: str) -> None:
    request = negatives_request(caption, language, CONFIG, known=["a toy", "x" * 5000])
    assert json.dumps(caption, ensure_ascii=False) in request.user
    assert "10" in request.user
    assert "$types" not in request.user
    assert all(kind in request.user for kind in ATTRIBUTE_TYPES)
    assert len(request.user) < 3000
    assert request.schema == reply_schema(10)


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("level", ["hard", "medium", "easy"])
def test_every_level_has_words(language: Language, level) -> None:
    one = negatives_request("a", language, LlmConfig(level=level)).user
    assert "$" not in one
    assert (
        one != negatives_request("a", language, LlmConfig(level="hard" if level != "hard" else "easy")).user
    )


def test_a_good_answer() -> None:
    found = parsed(f"```json\n{answer()}\n```")
    assert found.candidates.texts[0] == "A blue ball."
    assert found.candidates.types == ("colour",) * 10
    assert found.candidates.sources == ("llm",) * 10
    assert not found.refused


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("x" * 20_001, "L_TOO_LONG"),
        ("Sure! Here they are: ...", "L_NOT_JSON"),
        (answer()[:-1], "L_NOT_JSON"),
        ("[" * 20_000, "L_NOT_JSON"),
        ('{"negatives": NaN}', "L_NOT_JSON"),
        ('{"negatives": [], "negatives": []}', "L_NOT_JSON"),
        ("[]", "L_SHAPE"),
        ("null", "L_SHAPE"),
        ('{"negatives": {}}', "L_SHAPE"),
        (answer(note="done"), "L_SHAPE"),
        (answer(["a blue ball"] * 10), "L_SHAPE"),
        (answer([*GOOD[:9], {"text": 3, "type": "colour"}]), "L_SHAPE"),
        (answer([*GOOD[:9], {"text": "a", "type": "mood"}]), "L_SHAPE"),
        (answer([*GOOD[:9], {"text": "a", "type": ["colour"]}]), "L_SHAPE"),
        (answer([*GOOD[:9], {"text": "a"}]), "L_SHAPE"),
        (answer(GOOD[:9]), "L_COUNT"),
        (answer([*GOOD, GOOD[0]]), "L_COUNT"),
        (answer([]), "L_COUNT"),
    ],
)
def test_answers_that_are_refused(reply: str, code: str) -> None:
    with pytest.raises(ReplyError) as caught:
        parsed(reply)
    assert caught.value.code == code
    assert code in REPLY_FAULTS
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("a <b>blue</b> ball", "R_MARKUP"),
        ("a blue\u0007 ball", "R_CONTROL"),
        ("a blue\u202e ball", "R_CONTROL"),
        ("a blue \ud800 ball", "R_CONTROL"),
        ("蓝色的球", "R_LANGUAGE_MISMATCH"),
        ("a" * 1001, "R_TOO_LONG"),
        ("...", "R_EMPTY"),
        ("see https://a.b", "R_MARKUP"),
    ],
)
def test_texts_that_are_left_out(text: str, code: str) -> None:
    found = parsed(answer([*GOOD[:9], {"text": text, "type": "colour"}]))
    assert found.refused == {code: 1}
    assert code in REASONS
    assert len(found.candidates.texts) == 9


@pytest.mark.parametrize(
    ("text", "positive", "expected"),
    [
        ("blue ball", "A red ball.", "Blue ball."),
        ("A blue ball!", "a red ball", "a blue ball"),
        ("TV set.", "a red ball", "TV set"),
        ("  a blue   ball ", "a red ball", "a blue ball"),
    ],
)
def test_ends_follow_the_caption(text: str, positive: str, expected: str) -> None:
    found = parsed(answer([{"text": text, "type": "colour"}, *GOOD[:9]]), positive)
    assert found.candidates.texts[0] == expected


def test_types_are_what_was_changed_not_what_the_model_says() -> None:
    assert changed_types("a red plastic ball", "a blue glass ball") == "colour+material"
    assert changed_types("a red ball", "a ball") == ""
    lied = [{"text": "A blue ball.", "type": "size"}, {"text": "A red zorb.", "type": "object"}, *GOOD[:8]]
    assert parsed(answer(lied)).candidates.types[:2] == ("colour", "object")


def test_they_go_through_the_same_validators() -> None:
    tricky = [
        "A red ball.",
        "A crimson ball.",
        "A ball.",
        "A maroon ball.",
        "A striped red ball.",
        "An blue ball.",
    ]
    entries = [{"text": text, "type": "colour"} for text in tricky] + GOOD[:4]
    candidates = parsed(answer(entries)).candidates
    (found,) = validate_all([TextValidator()], [candidates], [RegionContext()])
    assert found.reasons == (
        "F_POSITIVE",
        None,  # a word that the lexicon lacks: the model of images must judge
        "V_ENTAILED",
        "V_SYNONYM",
        "V_OPEN",
        "F_ARTICLE",
        *[None] * 4,
    )
    assert set(found.kept.sources) == {"llm"}


def test_rule_and_model_together() -> None:
    one, other = parsed(answer()).candidates, parsed(answer()).candidates
    both = joined(one, other)
    (found,) = validate_all([TextValidator()], [both], [RegionContext()])
    assert found.reasons[10:] == ("F_DUPLICATE",) * 10
    with pytest.raises(ConfigError, match="num_asked is 9"):
        LlmConfig(num_asked=9)
    with pytest.raises(ConfigError, match="trivial"):
        LlmConfig(level="trivial")
