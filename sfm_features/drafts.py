"""Folders and files of results: there whole or not at all, and over nothing foreign.

A folder carries a mark that lists its files, by which the next run tells it from what
somebody else put there, or added to it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sfm_features import __version__
from sfm_features.errors import BusyStore, InputError, OutputError
from sfm_features.journal import claim, explain_os_errors

MARK = ".sfm-features.json"
"""The file by which a folder of results is known; it lists the others."""

_LITTER = ".DS_Store"  # left by whoever looks into a folder on a Mac


def refuse_overlap(output: Path, *inputs: Path) -> None:
    """Raise InputError for an output inside an input, or around it: inputs stay."""
    made = output.resolve()
    for path in inputs:
        there = path.resolve()
        if made.is_relative_to(there):
            raise InputError(
                f"{output}: lies in {path}, which is read and stays as it is; choose "
                "another --output"
            )
        if there.is_relative_to(made):
            raise InputError(
                f"{output}: holds {path}, which is read, and would be replaced; choose "
                "another --output"
            )


@contextmanager
def publish_folder(output: Path, command: str) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `output` if all goes well.

    What is there is replaced only if an earlier run of this command made all of it.
    """
    output = Path(os.path.abspath(output))  # a name such as `.` is none
    refuse_foreign(output, command)
    work = output.with_name(f".{output.name}.work")
    draft = work / "draft"
    with _name(output, draft, work), explain_os_errors(output), claim(work):
        try:
            shutil.rmtree(draft, ignore_errors=True)  # of a run that was killed
            draft.mkdir()
            yield draft
            _mark(draft, command)
            refuse_foreign(output, command)
            shutil.rmtree(work / "replaced", ignore_errors=True)
            if output.exists():
                os.replace(output, work / "replaced")
            os.replace(draft, output)
        finally:
            shutil.rmtree(work, ignore_errors=True)


@contextmanager
def _name(output: Path, *drafts: Path) -> Iterator[None]:
    """Let errors name the output that the user asked for, not what becomes of it."""
    try:
        yield
    except (OutputError, BusyStore) as error:
        text = str(error)
        for draft in drafts:
            text = text.replace(str(draft), str(output))
        raise type(error)(text) from error


def refuse_foreign(output: Path, command: str) -> None:
    """Raise OutputError for something in the way that this command did not make."""
    if not output.exists() and not output.is_symlink():
        return
    if not output.is_dir():
        raise OutputError(
            f"{output}: is there already and is not a folder; choose another --output"
        )
    known = {*_read_mark(output, command), MARK, _LITTER}
    for path in output.rglob("*"):
        is_folder = path.is_dir() and not path.is_symlink()
        if not is_folder and path.relative_to(output).as_posix() not in known:
            raise OutputError(
                f"{path}: was not made by an earlier `sfm-features {command}`, and "
                "would be deleted; choose another --output, or delete it yourself"
            )


def _mark(folder: Path, command: str) -> None:
    files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
    content = {"command": command, "version": __version__, "files": sorted(files)}
    (folder / MARK).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _read_mark(folder: Path, command: str) -> set[str]:
    """Read which files a command made in a folder; none if nothing tells."""
    try:
        content = json.loads((folder / MARK).read_text(encoding="utf-8"))
        names = content["files"] if content["command"] == command else []
        return {name for name in names if isinstance(name, str)}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
