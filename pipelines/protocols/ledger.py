"""What was measured, written down one by one, so that a stopped run goes on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from sfm_features.errors import DamagedStore, StaleStore
from sfm_features.journal import explain_os_errors, replace_text

Figures = Mapping[str, float]


class Ledger:
    """Figures by key: a line of JSON each, after one that says how they are measured.

    A line that a kill cut off is dropped, and what it was about is measured again.
    """

    def __init__(self, path: Path, settings: str) -> None:
        self._path = path
        self._figures: dict[str, Figures] = {}
        first = json.dumps({"settings": settings}) + "\n"
        with explain_os_errors(path):
            lines = path.read_bytes().split(b"\n")[:-1] if path.is_file() else []
        if not lines:
            replace_text(path, first)
            return
        if lines[0] + b"\n" != first.encode():
            raise StaleStore(
                f"{path}: measured with other settings; choose another --output, or "
                "delete this file to measure anew"
            )
        try:
            self._figures = dict(json.loads(line) for line in lines[1:])
        except (ValueError, TypeError) as error:
            raise DamagedStore(
                f"{path}: has a line that is not of this tool ({error}); delete the "
                "file to measure anew"
            ) from error
        replace_text(path, b"\n".join([*lines, b""]).decode())

    def __contains__(self, key: str) -> bool:
        return key in self._figures

    def __getitem__(self, key: str) -> Figures:
        return self._figures[key]

    def add(self, key: str, figures: Figures) -> None:
        """Write down what was measured; from now on no kill takes it away."""
        with explain_os_errors(self._path), self._path.open("ab") as file:
            file.write((json.dumps([key, figures]) + "\n").encode())
        self._figures[key] = figures
