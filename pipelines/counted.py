"""Numbers with their nouns, as English wants them: `1 shard`, `2 shards`, `1 shard is not done`."""

import re
from collections.abc import Mapping

_IRREGULAR = {
    "boxes": "box",
    "classes": "class",
    "copies": "copy",
    "indexes": "index",
    "strata": "stratum",
    "stretches": "stretch",
}
_NOUNS = (
    *_IRREGULAR,
    *(
        "GPUs",
        "actors",
        "annotations",
        "archives",
        "captions",
        "characters",
        "codes",
        "doubles",
        "files",
        "formats",
        "images",
        "labels",
    ),
    *(
        "licences",
        "lines",
        "masks",
        "names",
        "nights",
        "others",
        "parts",
        "pictures",
        "prompts",
        "questions",
        "reasons",
        "regions",
    ),
    *("rows", "scores", "sentences", "shards", "sources", "things", "workers"),
)
_VERBS = {"are": "is", "belong": "belongs", "have": "has", "leave": "leaves", "were": "was"}
_PHRASE = (
    r"(?P<before>(?:(?!of\b|the\b)[\w-]+ ){0,2}?)"
    rf"(?P<noun>{'|'.join(_NOUNS)})\b(?![/\w])(?P<verb> (?:{'|'.join(_VERBS)})\b)?"
)
_START = re.compile(_PHRASE)
_IN_TEMPLATE = re.compile(r"\{(?P<name>\w+)\} " + _PHRASE)


def counted(number: int, phrase: str, shown: str | None = None) -> str:
    """`counted(1, "damaged shards")` is `1 damaged shard`; `shown` is how the number is written."""
    return f"{number if shown is None else shown} {phrase if number != 1 else of_one(phrase)}"


def of_one(phrase: str) -> str:
    """A phrase that begins with a noun in the plural, for one thing: its noun, and the verbs that follow it."""
    found = _START.match(phrase)
    if found is None:
        return phrase
    rest = phrase[found.end() :]
    if found["verb"]:
        rest = re.sub(r"\band (are|have|were)\b", lambda verb: f"and {_VERBS[verb[1]]}", rest)
    return _singular(found) + rest


def agreeing(template: str, fields: Mapping[str, object]) -> str:
    """A template of an English sentence whose nouns agree with the fields that count them; not yet filled in."""
    return _IN_TEMPLATE.sub(
        lambda found: (
            f"{{{found['name']}}} {_singular(found)}" if str(fields.get(found["name"])) == "1" else found[0]
        ),
        template,
    )


def _singular(found: re.Match[str]) -> str:
    noun = _IRREGULAR.get(found["noun"], found["noun"].removesuffix("s"))
    verb = f" {_VERBS[found['verb'].strip()]}" if found["verb"] else ""
    return f"{found['before']}{noun}{verb}"
