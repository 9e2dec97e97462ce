"""Negatives for a person to read: some rows of every language and type, the same ones for the same tables."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ovsops.errors import ConfigError
from pipelines.labelled_shards import read_committed
from pipelines.storage import Storage, StorageOptions, open_storage

AUDIT_LINES, AUDIT_TABLE = "audit.jsonl", "audit.csv"
_VERDICTS = ("true_negatives", "ungrammatical", "remark")
"""Columns for the reader to fill in: numbers of the negatives that are true, or no sentence."""

Strata = dict[str, list[tuple[str, dict[str, Any]]]]
"""Rows with their hash, smallest first, by language and type."""


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """How much a person is given to read."""

    rows: int = 50
    """Regions, spread over languages and types of change."""

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ConfigError(f"audit.rows is {self.rows}: give 1 or more")


def audit_strata(
    output: str, options: StorageOptions, table: Mapping[str, Any], *, config: AuditConfig, seed: int
) -> Strata:
    """The rows of one committed table that could be chosen: of every stratum those with the smallest hashes."""
    strata: Strata = {}
    for row in read_committed(open_storage(output, options), table).to_pylist():
        if row["negatives"] is not None:
            digest = hashlib.blake2b(f"{seed}\0{row['instance_uid']}".encode(), digest_size=8).hexdigest()
            first = sorted(row["types"], key=lambda kind: (-row["types"].count(kind), kind))[0]
            strata.setdefault(f"{row['language']} {first}", []).append((digest, row))
    return {name: _smallest(rows, config.rows) for name, rows in strata.items()}


def audit_rows(parts: Iterable[Strata], config: AuditConfig) -> list[dict[str, Any]]:
    """One row of each stratum in turn, until there are enough. The order of the parts does not matter."""
    strata: Strata = {}
    for part in parts:
        for name, rows in part.items():
            strata[name] = _smallest(strata.get(name, []) + rows, config.rows)
    chosen = []
    for turn in range(config.rows):
        for name in sorted(strata):
            if turn < len(strata[name]):
                chosen.append({"stratum": name, **strata[name][turn][1]})
    return chosen[: config.rows]


def _smallest(rows: list[tuple[str, dict[str, Any]]], count: int) -> list[tuple[str, dict[str, Any]]]:
    return sorted(rows, key=lambda each: (each[0], each[1]["instance_uid"]))[:count]


def write_audit(storage: Storage, rows: list[dict[str, Any]]) -> list[str]:
    """`audit.jsonl` for programs and `audit.csv` for a table of a person's; the files' names."""
    lines = [json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows]
    storage.put(AUDIT_LINES, "".join(lines).encode("utf-8", "surrogatepass"))
    sheet = io.StringIO(newline="")
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(["stratum", "instance_uid", "key", "positive", "negatives", "types", *_VERDICTS])
    for row in rows:
        texts = "\n".join(f"{number}. {text}" for number, text in enumerate(row["negatives"], 1))
        cells = [row["stratum"], row["instance_uid"], row["key"], row["positive"], texts]
        writer.writerow([*map(_cell, cells), ", ".join(row["types"]), *[""] * len(_VERDICTS)])
    storage.put(AUDIT_TABLE, sheet.getvalue().encode("utf-8-sig", "surrogatepass"))
    return [AUDIT_LINES, AUDIT_TABLE]


def _cell(text: str) -> str:
    """Texts of strangers are no formulas of a spreadsheet."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
