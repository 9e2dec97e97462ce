"""Every kind of golden file, and the check of those whose operator is built."""

from pathlib import Path

import numpy as np

from tests.golden import (
    checks_cass,
    checks_cass_tiny,
    checks_fgclip2,
    checks_fgovd,
    checks_pamr,
    checks_patches,
    checks_queries,
    checks_rle,
    checks_roialign,
    checks_scclip,
    talk2dino_checks,
)
from tests.golden.table import Check

_OPERATORS_BY_METHOD = {
    "talk2dino": "projection attention infonce bgclean pamr text mask",
    "cass": "attn cost lowrank pamr postprocess slide template_mean text tiny",
    "scclip": "aggregate attn interp lof postprocess tiny",
    "fgclip2": "fgovd_score longpos losses model ovd preproc roialign",
    "sam3": "agg lof rle",
}
KINDS = frozenset(
    f"{method}_{name}" for method, names in _OPERATORS_BY_METHOD.items() for name in names.split()
)
"""All kinds there are. A file is `<kind>_<anything>.npz` or `<kind>.npz`."""

CHECKS: dict[str, Check] = {
    **checks_cass.CHECKS,
    **checks_cass_tiny.CHECKS,
    **checks_fgclip2.CHECKS,
    **checks_fgovd.CHECKS,
    **checks_pamr.CHECKS,
    **checks_patches.CHECKS,
    **checks_queries.CHECKS,
    **checks_rle.CHECKS,
    **checks_roialign.CHECKS,
    **checks_scclip.CHECKS,
    **talk2dino_checks.CHECKS,
}
"""The check of each kind whose operator is built. A kind of `KINDS` that is missing here is not built yet."""

RESULTS_BY_KIND: dict[str, tuple[str, ...]] = {
    **checks_cass.RESULTS,
    **checks_cass_tiny.RESULTS,
    **checks_fgclip2.RESULTS,
    **checks_fgovd.RESULTS,
    **checks_patches.RESULTS,
    **checks_queries.RESULTS,
    **checks_roialign.RESULTS,
    **checks_scclip.RESULTS,
}
"""How the names of a kind's result arrays begin, where it is not `out`: a changed number in one must fail."""


def kind_of(path: Path) -> str | None:
    """The kind that a file's name begins with, the longest if several do; None for an unknown name."""
    fitting = [kind for kind in KINDS if path.stem == kind or path.stem.startswith(f"{kind}_")]
    return max(fitting, key=len, default=None)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of a file. Never unpickles: an object array is an error."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def run_check(path: Path) -> None:
    """Run the check of a file whose kind is built; raises where code and file disagree."""
    kind = kind_of(path)
    assert kind is not None, f"{path.name}: unknown kind; known are {', '.join(sorted(KINDS))}"
    CHECKS[kind](load_arrays(path), path.parent)
