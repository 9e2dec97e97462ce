"""The runner itself: a changed number, an unknown name, a kind that is not built, a pickle."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ovsops.errors import OvsopsError
from tests.golden.conftest import DATA, golden_files
from tests.golden.kinds import CHECKS, KINDS, RESULTS_BY_KIND, kind_of, load_arrays, run_check

ROOT = Path(__file__).parents[2]
RESULTS = ("out", "counts_", "string_", "area_", "bbox_")
COMPARED_LOOSELY = "seed0"
"""Results of code that is not deterministic: they agree to 10 %."""
BUILT_FILES = [path for path in sorted(DATA.glob("*.npz")) if kind_of(path) in CHECKS]


def with_one_number_changed(array: np.ndarray) -> np.ndarray:
    """Its middle number moved: whole numbers by 1, others by a twentieth of the largest, at least 0.01; bools flip."""
    changed = array.copy()
    at = changed.size // 2
    if changed.dtype == bool:
        changed.flat[at] = not changed.flat[at]
    elif np.issubdtype(changed.dtype, np.floating):
        changed.flat[at] += max(0.01, 0.05 * float(np.abs(changed).max()))
    else:
        changed.flat[at] += 1
    return changed


@pytest.mark.parametrize("path", BUILT_FILES, ids=lambda path: path.stem)
def test_one_changed_number_fails_in_every_result_of_every_file(path: Path) -> None:
    arrays = load_arrays(path)
    kind = str(kind_of(path))
    check = CHECKS[kind]
    results = [
        name
        for name in arrays
        if name.startswith(RESULTS_BY_KIND.get(kind, RESULTS)) and not name.endswith(COMPARED_LOOSELY)
    ]
    assert results
    for name in results:
        with pytest.raises((AssertionError, OvsopsError)):
            check({**arrays, name: with_one_number_changed(arrays[name])}, path.parent)


def test_one_changed_pixel_of_an_input_fails(tmp_path: Path) -> None:
    arrays = load_arrays(DATA / "talk2dino_pamr_1.npz")
    arrays["mask"][0, 1, 3, 3] += 0.01
    np.savez(tmp_path / "talk2dino_pamr_1.npz", **arrays)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        run_check(tmp_path / "talk2dino_pamr_1.npz")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "sam3_rle_pickled.npz"
    np.savez(path, n=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        run_check(path)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("talk2dino_pamr_17.npz", "talk2dino_pamr"),
        ("cass_text.npz", "cass_text"),
        ("cass_template_mean.npz", "cass_template_mean"),
        ("cass_tiny_weights.npz", "cass_tiny"),
        ("fgclip2_fgovd_score_b.npz", "fgclip2_fgovd_score"),
        ("sam3_rle_more_of_it.npz", "sam3_rle"),
        ("sam3_rles.npz", None),
        ("other.npz", None),
    ],
)
def test_kinds_are_told_by_name(name: str, kind: str | None) -> None:
    assert kind_of(Path(name)) == kind


def test_the_table_is_complete() -> None:
    assert len(KINDS) == 7 + 9 + 6 + 7 + 3


def run_golden(folder: Path, *options: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/golden/test_golden.py"]
    done = subprocess.run(
        [*command, "--golden-dir", str(folder), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.nightly
def test_a_folder_is_checked_file_by_file(tmp_path: Path) -> None:
    arrays = load_arrays(DATA / "sam3_rle_basic.npz")
    np.savez(tmp_path / "sam3_rle_fine.npz", **arrays)
    not_built = sorted(KINDS - set(CHECKS))[:1]
    for kind in not_built:
        np.savez(tmp_path / f"{kind}_0.npz", a=np.zeros(1))
    code, text = run_golden(tmp_path)
    assert code == 0, text
    for kind in not_built:
        assert f"not built: {kind} ({kind}_0.npz)" in text

    arrays["area_12"] = arrays["area_12"] + 1
    np.savez(tmp_path / "sam3_rle_changed.npz", **arrays)
    np.savez(tmp_path / "mystery_0.npz", a=np.zeros(1))
    code, text = run_golden(tmp_path, "--golden-strict")
    assert code == 1, text
    assert f"{2 + len(not_built)} failed, 2 passed" in text
    assert "sam3_rle_changed" in text
    assert "mystery_0.npz: unknown kind" in text


def test_a_folder_without_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(pytest.UsageError, match=r"no \.npz file there"):
        golden_files(tmp_path)
