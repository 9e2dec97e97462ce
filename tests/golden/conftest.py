"""Options of the golden runner, and the list of kinds that were not checked at the end of a run.

pytest tests/golden --golden-dir DIR [--golden-strict]
"""

from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
NOT_BUILT = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("golden", "golden numbers")
    group.addoption(
        "--golden-dir", type=Path, default=DATA, help="run the matching check on every .npz of this folder"
    )
    group.addoption(
        "--golden-strict", action="store_true", help="fail on files of kinds whose operator is not built yet"
    )


def golden_files(folder: Path) -> list[Path]:
    """Every .npz of a folder. A folder without one is a mistake, not a pass."""
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise pytest.UsageError(f"--golden-dir {folder}: no .npz file there; name the folder that holds them")
    return files


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "golden_file" in metafunc.fixturenames:
        files = golden_files(metafunc.config.getoption("--golden-dir", DATA))
        metafunc.parametrize("golden_file", files, ids=lambda path: path.stem)


@pytest.fixture
def not_built(request: pytest.FixtureRequest) -> set[str]:
    """Names of the files met so far whose operator is not built yet."""
    return request.config.stash.setdefault(NOT_BUILT, set())


@pytest.fixture
def golden_strict(request: pytest.FixtureRequest) -> bool:
    """Whether a kind that is not built yet fails."""
    return bool(request.config.getoption("--golden-strict", False))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    names = config.stash.get(NOT_BUILT, set())
    if names:
        terminalreporter.section("golden kinds not built yet")
        for name in sorted(names):
            terminalreporter.write_line(f"not built: {name}")
