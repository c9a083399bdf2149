"""A benchmark's result, and how it becomes JSON and markdown."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from sfm_features.errors import InputError, SfmError

ROOT = Path(__file__).parents[2]
LIBRARIES = ("sfm-features", "torch", "opencv-python-headless", "pycolmap", "h5py")

Cell = str | int | float | None
Row = Mapping[str, Cell]


@dataclass(frozen=True)
class Check:
    """A figure that has a limit: it should be at most so much."""

    what: str
    value: float
    limit: float

    def to_text(self) -> str:
        """Say it in a line."""
        verdict = "met" if self.value <= self.limit else "MISSED"
        return f"**{self.what}: {self.value:.2f}** (at most {self.limit:g}: {verdict})"


@dataclass(frozen=True)
class Result:
    """What a benchmark found: rows of a table, figures with a limit, and details.

    `load` is the machine's load average over a minute, before and after: figures count
    only where it is about what the benchmark itself makes.
    """

    title: str
    rows: Sequence[Row]
    checks: Sequence[Check] = ()
    details: Mapping[str, object] = field(default_factory=dict)
    load: tuple[float, float] = (math.nan, math.nan)


@dataclass(frozen=True)
class Provenance:
    """Where figures come from."""

    command: str
    commit: str
    seed: int
    machine: str
    versions: Mapping[str, str]


def describe_run(module: str, arguments: Sequence[str], seed: int) -> Provenance:
    """Tell the command, the commit, the machine and the libraries."""
    return Provenance(
        f"python -m {module} {shlex.join(map(_hide_folder, arguments))}",
        _describe_commit(),
        seed,
        f"{_name_cpu()}, {os.cpu_count()} cores, {platform.system()}",
        {
            "python": platform.python_version(),
            **{name: version(name) for name in LIBRARIES},
        },
    )


def run_and_publish(
    module: str,
    arguments: Sequence[str] | None,
    args: argparse.Namespace,
    seed: int,
    run: Callable[[argparse.Namespace], dict[str, Result]],
) -> int:
    """Run, print tables, write them down; return what the shell is told."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        found = run(args)
        publish(found, describe_run(module, given, seed), args.output, args.write)
    except SfmError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def read_load() -> float:
    """Return the load average over a minute, nan where the system has none."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else math.nan


def write_json(
    path: Path, results: Mapping[str, Result], provenance: Provenance
) -> None:
    """Write all that was found; what cannot be measured is null."""
    found = {name: asdict(result) for name, result in results.items()}
    content = _without_nan({"run": asdict(provenance), "results": found})
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def to_markdown(result: Result, provenance: Provenance) -> str:
    """Show a result as a title, its checks, a table and where it comes from."""
    columns = list(dict.fromkeys(key for row in result.rows for key in row))
    lines = [f"### {result.title}", ""]
    lines += [f"- {check.to_text()}" for check in result.checks]
    lines += [""] if result.checks else []
    lines += [_to_line(columns), _to_line(["---"] * len(columns))]
    lines += [_to_line([_show(row.get(c)) for c in columns]) for row in result.rows]
    versions = ", ".join(f"{name} {v}" for name, v in provenance.versions.items())
    machine = provenance.machine + _show_load(result.load)
    lines += [
        "",
        f"`{provenance.command}` at commit {provenance.commit}, seed "
        f"{provenance.seed}; {machine}; {versions}.",
    ]
    return "\n".join(lines)


def publish(
    found: Mapping[str, Result],
    provenance: Provenance,
    output: Path,
    document: Path | None = None,
) -> None:
    """Print tables, write results.json and .md, and fill a document's sections."""
    tables = {name: to_markdown(result, provenance) for name, result in found.items()}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "results.json", found, provenance)
    text = "\n\n".join(tables.values()) + "\n"
    (output / "results.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    if document is not None:
        fill_sections(document, tables)


def fill_sections(document: Path, sections: Mapping[str, str]) -> None:
    """Replace what is between `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    text = document.read_text(encoding="utf-8")
    for name, section in sections.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        before, found_begin, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found_begin and found_end):
            raise InputError(
                f"{document}: has no section {name!r}; add the lines {begin} and {end}"
            )
        text = f"{before}{begin}\n{section}\n{end}{after}"
    document.write_text(text, encoding="utf-8")


def _to_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _show(cell: Cell) -> str:
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return "-"
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _show_load(load: tuple[float, float]) -> str:
    before, after = load
    known = not (math.isnan(before) or math.isnan(after))
    return f", load {before:.1f} before and {after:.1f} after" if known else ""


def _without_nan(value: object) -> object:
    """Replace nan, which JSON lacks, by None."""
    if isinstance(value, Mapping):
        return {str(key): _without_nan(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _hide_folder(argument: str) -> str:
    """Leave out where on this machine a folder is: that tells nobody anything."""
    name, equals, path = argument.rpartition("=")
    return f"{name}{equals}{Path(path).name}" if Path(path).is_absolute() else argument


def _describe_commit() -> str:
    def ask_git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        commit = ask_git("rev-parse", "--short=12", "HEAD")
        changed = ask_git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git)"
    return f"{commit} with uncommitted changes" if changed else commit


def _name_cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()
