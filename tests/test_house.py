"""The rules of the house: who may import whom, and what importing may cost."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sfm_features"

# Rooms from the ground up; a module may import from its own level or below.
LEVELS = [
    ["types", "errors", "__init__"],
    [
        "journal",
        "drafts",
        "geometry",
        "images",
        "photo_files",
        "masks",
        "orientation",
        "ahead",
        "chance",
        "recent",
    ],
    ["shell"],
    ["depths"],
    ["metrics", "regression", "still", "store", "colmap", "similarity", "transforms"],
    ["tracks"],
    ["align"],
    ["nets"],
    ["extractors", "matchers"],
    ["registry"],
    ["scenes", "ranking", "similar", "pairs", "pair_files", "queries", "candidates"],
    [
        "extract",
        "match",
        "retrieve",
        "merge",
        "convert",
        "workspace",
        "summary",
        "report",
    ],
    ["objects", "atlas", "verdict"],
    ["localizer"],
    ["reporting", "query_report"],
    ["polish"],
    ["modelling"],
    ["reconstruct", "triangulate", "localize", "map_add", "georegister", "export"],
    ["demo", "training"],
    ["file_commands", "object_commands", "map_commands", "training_commands"],
    ["cli", "__main__"],
]
DOORS = {"h5py": "store", "pycolmap": "colmap"}


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if node.module == "sfm_features" else {str(node.module)}
    return found


def test_imports_point_downwards() -> None:
    level = {room: i for i, rooms in enumerate(LEVELS) for room in rooms}
    upward = []
    for path in PACKAGE.rglob("*.py"):
        room = _room(path)
        assert room in level, f"{path}: give the room {room!r} a level in this test"
        for name in _imports(path):
            if name.startswith("sfm_features."):
                target = name.split(".")[1]
                if target in level and level[target] > level[room]:
                    upward.append(f"{path}: imports {name}")
    assert not upward, upward


def test_each_library_has_one_door() -> None:
    intruders = [
        f"{path}: imports {name}"
        for path in [*PACKAGE.rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]
        for name in _imports(path)
        for library, door in DOORS.items()
        if name.split(".")[0] == library
        and not (path.is_relative_to(PACKAGE) and _room(path) == door)
    ]
    assert not intruders, intruders


def test_nothing_but_the_shell_imports_training() -> None:
    shell = ("cli", "object_commands", "training_commands", "training")
    intruders = [
        str(path)
        for path in PACKAGE.rglob("*.py")
        if _room(path) not in shell
        and any(name.startswith("sfm_features.training") for name in _imports(path))
    ]
    assert not intruders, intruders


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = (
        "import sfm_features, sys\n"
        "print(*{'torch', 'cv2', 'h5py', 'pycolmap'} & {*sys.modules})"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""


def test_half_pixels_live_in_one_place() -> None:
    """A literal 0.5 beside pixels is how poses shift; both doors use the name."""
    rooms = [PACKAGE / "extract.py", PACKAGE / "images.py", *PACKAGE.glob("store/*.py")]
    assert len(rooms) > 3
    for path in rooms:
        assert "0.5" not in path.read_text(encoding="utf-8"), path


def test_progress_bars_heed_the_environment() -> None:
    """What is passed as `disable` would override TQDM_DISABLE."""
    bad = []
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_bar = isinstance(node, ast.Call) and ast.unparse(node.func) == "tqdm"
            if is_bar and any(keyword.arg == "disable" for keyword in node.keywords):
                bad.append(f"{path}: {ast.unparse(node)}")
    assert not bad, bad


def test_nothing_is_unpickled() -> None:
    """A pickle runs what it likes: neither files of users nor our own are read so."""
    bad = []
    for path in [*PACKAGE.rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                call = ast.unparse(node)
                name = call.partition("(")[0]
                careless = name == "torch.load" and "weights_only=True" not in call
                pickled = name in ("pickle.load", "pickle.loads", "pickle.Unpickler")
                if careless or pickled or "allow_pickle=True" in call:
                    bad.append(f"{path}: {call}")
    assert not bad, bad
