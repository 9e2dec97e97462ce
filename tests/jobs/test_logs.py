"""Log lines: one a record, whatever a name in an archive holds."""

import json
import logging

from jobs.logs import JsonFormatter, TextFormatter, escape_controls


def record(message: str) -> logging.LogRecord:
    return logging.LogRecord("pipelines.x", logging.WARNING, "f", 1, "%s", (message,), None)


def test_control_characters_and_overrides_are_escaped_and_letters_are_not() -> None:
    assert escape_controls("a\n\x1b[2J\u202e\u2028\x00") == "a\\n\\x1b[2J\\u202e\\u2028\\x00"
    assert escape_controls("猫 é 😀 ok") == "猫 é 😀 ok"


def test_a_record_is_one_line_in_both_formats() -> None:
    hostile = record("x\ny AKIAIOSFODNN7EXAMPLE")
    assert len(TextFormatter().format(hostile).splitlines()) == 1
    line = JsonFormatter().format(hostile)
    assert len(line.splitlines()) == 1
    assert json.loads(line)["message"] == "x\\ny [redacted]"
    assert json.loads(line)["level"] == "warning"
