"""Golden checks of the talk2dino kinds: file name prefix to check function(arrays, folder)."""

from tests.golden.table import Check

CHECKS: dict[str, Check] = {}
