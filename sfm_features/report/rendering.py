"""What all pages need: their templates, drawing in threads, choosing what to show."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sfm_features.errors import MissingExtra

Item = TypeVar("Item")
Result = TypeVar("Result")


def load_template(name: str) -> Callable[..., str]:
    """Return a function from a page's values to the page."""
    try:
        import jinja2
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingExtra(
            f"the report needs {error.name}, which is not installed; "
            "pip install 'sfm-features[report]'"
        ) from error
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sfm_features"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["seconds"] = format_seconds
    return functools.partial(
        environment.get_template(name).render, plotly=get_plotlyjs()
    )


def draw_in_threads(
    draw: Callable[[Item], Result], items: Iterable[Item]
) -> Iterator[Result]:
    """Draw several at a time, and hand them out in order."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        yield from pool.map(draw, items)


def choose_evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Choose at most so many, evenly spread, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    step = (len(items) - 1) / max(most - 1, 1)
    return [items[round(i * step)] for i in range(most)]


def name_folder(folder: Path) -> str:
    """Name a folder of images, or what holds it where it is just `images`."""
    plain = folder.name.lower() in ("images", "photos", "")
    return (folder.parent.name if plain else folder.name) or folder.name or "Images"


def format_seconds(seconds: float) -> str:
    """Write a time for people."""
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
