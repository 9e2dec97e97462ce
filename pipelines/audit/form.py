"""The file that a person fills in: written as CSV and as JSON Lines, read back as whatever came of it.

Names of classes and keys of images come from archives, so no cell that is written starts as a formula would. Of a file
that is read only uid, verdict, right class and note count: all else is looked up in the sample's own record.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovsops.errors import ConfigError
from ovsops.text.names import nearest
from pipelines.audit.sample import SampledRow, chance_of
from pipelines.counted import counted

VERDICTS = {
    "right": "class and mask are right",
    "wrong_class": "the thing is there, it is something else (`right_class` may say what)",
    "bad_mask": "the class is right, the mask is not that thing's",
    "not_there": "there is no such thing",
    "wrong": "wrong, for another reason",
    "unsure": "cannot be told from the picture; does not count",
}
"""What may stand in `verdict`. Empty is not judged."""
_ALIASES = {
    "y": "right",
    "yes": "right",
    "ok": "right",
    "true": "right",
    "1": "right",
    "对": "right",
    "n": "wrong",
    "no": "wrong",
    "false": "wrong",
    "0": "wrong",
    "错": "wrong",
    "?": "unsure",
}
COLUMNS = (
    "row",
    "instance_uid",
    "picture",
    "class",
    "decision",
    "score",
    "verdict",
    "right_class",
    "note",
    "shard",
    "key",
    "bbox_xywh",
    "reasons",
)
_NEEDED = ("instance_uid", "verdict")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
MAX_BYTES = 64 * 2**20
MAX_PROBLEMS = 20
_MAX_SHOWN = 60


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a person said of one row."""

    instance_uid: str
    verdict: str
    right_class: str
    note: str

    @property
    def is_right(self) -> bool:
        """Whether the label is right."""
        return self.verdict == "right"


def form_rows(rows: Sequence[SampledRow], pictures: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Rows of the form; `pictures` are paths by uid."""
    for number, row in enumerate(rows, 1):
        label = row.label
        yield {
            "row": number,
            "instance_uid": label["instance_uid"],
            "picture": pictures.get(label["instance_uid"], ""),
            "class": row.class_name,
            "decision": label["decision"] or "none",
            "score": round(chance_of(label), 4),
            "verdict": "",
            "right_class": "",
            "note": "",
            "shard": row.shard,
            "key": row.key,
            "bbox_xywh": " ".join(f"{side:g}" for side in label["bbox"]),
            "reasons": " ".join(label["reason_codes"]),
        }


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """UTF-8 with a byte order mark, by which spreadsheets know it."""
    sink = io.StringIO(newline="")
    writer = csv.DictWriter(sink, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: harmless(row[name]) for name in COLUMNS})
    return b"\xef\xbb\xbf" + sink.getvalue().encode("utf-8", "backslashreplace")


def harmless(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    text = "".join(character if character.isprintable() else " " for character in value)
    return f"'{text}" if text.startswith(_FORMULA_STARTS) or value.startswith(_FORMULA_STARTS) else text


def to_json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """One object a line."""
    return "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows).encode()


def read_answers(path: Path, uids: Mapping[str, Any]) -> list[Answer]:
    """What was filled in, in the order of the file; rows without a verdict are left out.

    Raises `ConfigError` that names every line that cannot be understood.
    """
    text = _text(path)
    is_json = path.suffix.lower() in (".jsonl", ".ndjson", ".json") or text.lstrip()[:1] == "{"
    problems: list[str] = []
    found: dict[str, tuple[int, Answer]] = {}
    for line, cells in _json_lines(text, problems) if is_json else _csv_lines(text, path, problems):
        answer = _answer(line, cells, uids, problems)
        if answer is None:
            continue
        earlier = found.get(answer.instance_uid)
        if earlier is None:
            found[answer.instance_uid] = line, answer
        elif earlier[1] != answer:
            problems.append(
                f"line {line}: {answer.instance_uid} was answered in line {earlier[0]} already, and"
                " differently; keep one"
            )
    if problems:
        shown = "\n  ".join(problems[:MAX_PROBLEMS])
        rest = len(problems) - MAX_PROBLEMS
        more = f"\n  and {rest} more" if rest > 0 else ""
        raise ConfigError(f"{path}: {counted(len(problems), 'lines')} cannot be used\n  {shown}{more}")
    return [answer for _, answer in found.values()]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path}: over {MAX_BYTES} bytes, which is no filled-in form of ours")
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not {'UTF-16' if encoding == 'utf-16' else 'UTF-8'} at byte {error.start}; save it as `CSV UTF-8`"
        ) from error
    if "\0" in text:
        raise ConfigError(f"{path}: holds null characters, so it is no text; save it as `CSV UTF-8`")
    if not text.strip():
        raise ConfigError(f"{path}: is empty")
    return text


def _csv_lines(text: str, path: Path, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    head = text.lstrip().splitlines()[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter)
    try:
        names = [name.strip().casefold() for name in next(reader)]
        absent = [name for name in _NEEDED if name not in names]
        if absent:
            shown = ", ".join(_shown(name) for name in names[:12])
            raise ConfigError(
                f"{path}: line 1 has no column {' and '.join(absent)}; it has {shown}. Keep the first line of the form"
            )
        doubled = sorted({name for name in names if name in COLUMNS and names.count(name) > 1})
        if doubled:
            raise ConfigError(f"{path}: line 1 has the column {', '.join(doubled)} more than once")
        for cells in reader:
            line = reader.line_num
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) > len(names) and any(cell.strip() for cell in cells[len(names) :]):
                problems.append(
                    f"line {line}: {len(cells)} cells, the first line has {len(names)}; quote cells that hold"
                    f" {delimiter!r}"
                )
                continue
            yield line, dict(zip(names, cells, strict=False))
    except csv.Error as error:
        problems.append(f"line {reader.line_num}: {error}")


def _json_lines(text: str, problems: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, part in enumerate(text.splitlines(), 1):
        if not part.strip():
            continue
        try:
            row = json.loads(part)
        except (ValueError, RecursionError):
            problems.append(f"line {line}: is no JSON: {_shown(part)}")
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            problems.append(
                f"line {line}: is JSON, but no object with instance_uid and verdict: {_shown(part)}"
            )


def _answer(
    line: int, cells: Mapping[str, Any], uids: Mapping[str, Any], problems: list[str]
) -> Answer | None:
    values = {}
    for name in ("instance_uid", "verdict", "right_class", "note"):
        value = cells.get(name)
        if value is not None and not isinstance(value, str):
            problems.append(f"line {line}: {name} is {_shown(json.dumps(value))}; expected text")
            return None
        values[name] = (value or "").strip()
    if not values["verdict"]:
        return None
    if values["instance_uid"] not in uids:
        problems.append(
            f"line {line}: {_shown(values['instance_uid'])} is no instance_uid of this sample; is it the"
            " form of another"
            " sample, or was the cell changed?"
        )
        return None
    word = values["verdict"].casefold().replace(" ", "_").replace("-", "_")
    verdict = _ALIASES.get(word, word)
    if verdict not in VERDICTS:
        problems.append(
            f"line {line}: verdict is {_shown(values['verdict'])}{nearest(verdict, VERDICTS)}; give one of"
            f" {', '.join(VERDICTS)}, or leave it empty"
        )
        return None
    return Answer(
        instance_uid=values["instance_uid"],
        verdict=verdict,
        right_class=values["right_class"],
        note=values["note"],
    )


def _shown(text: str) -> str:
    short = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
    return ascii(short) if not short.isprintable() else repr(short)
