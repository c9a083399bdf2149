"""Which photographs there are: folders, lists of names, and what is missing."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sfm_features.drafts import MARK
from sfm_features.errors import InputError, suggest
from sfm_features.journal import LOCK

SUFFIXES = (
    *(".bmp", ".jp2", ".jpe", ".jpeg", ".jpg", ".pgm"),
    *(".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
_NOT_DECODED = (
    *(".arw", ".avif", ".cr2", ".cr3", ".dng", ".exr", ".gif", ".hdr", ".heic"),
    *(".heif", ".jxl", ".nef", ".orf", ".psd", ".raf", ".rw2"),
)
"""Photographs, too, but not read here."""
_VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mts", ".webm", ".wmv")

logger = logging.getLogger(__name__)


def require_folder(folder: Path) -> None:
    """Raise InputError for a folder of images that is not there."""
    if folder.is_file():
        raise InputError(
            f"{folder}: is a file, not a folder; give the folder that it is in"
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder of your images")


def list_images(folder: Path, image_list: Path | None = None) -> list[str]:
    """List image names relative to a folder, sorted; only those of a list if given.

    Links to folders are followed; names that begin with a dot are passed over, and so
    are folders below that a run of ours wrote.
    """
    require_folder(folder)
    if image_list is not None:
        return _read_image_list(folder, image_list)
    names, others, videos = [], Counter[str](), list[Path]()
    for path in _walk(folder):
        suffix = path.suffix.lower()
        if suffix in SUFFIXES and path.is_file():
            names.append(path.relative_to(folder).as_posix())
        elif suffix in _NOT_DECODED:
            others[suffix] += 1
        elif suffix in _VIDEOS:
            videos.append(path)
    left = ", ".join(f"{count} {suffix}" for suffix, count in sorted(others.items()))
    if videos and not names and not others:
        raise InputError(
            f"{folder}: has no images but {len(videos)} videos; cut frames out of "
            f"them, as `mkdir frames; ffmpeg -i '{min(videos)}' -vf fps=2 "
            "frames/%05d.jpg`, and give their folder"
        )
    if not names:
        also = f" (there are {left}: convert them)" if left else ""
        raise InputError(
            f"{folder}: has no images{also}; give a folder with files ending in "
            f"{', '.join(SUFFIXES)}"
        )
    if left:
        logger.warning(
            "%s: left out %s; convert them to JPEG or PNG to use them", folder, left
        )
    return sorted(names)


def check_photos(folders: Sequence[Path], names: Sequence[str]) -> None:
    """Raise InputError if all photographs are absent; say how many are, if some.

    Those who want one later can leave it at that.
    """
    absent = [n for n in names if not any((f / n).is_file() for f in folders)]
    where = ", ".join(map(str, folders))
    if absent and len(absent) == len(names):
        files = (path for path in folders[0].rglob("*") if path.is_file())
        there = [path.relative_to(folders[0]).as_posix() for path in files]
        raise InputError(
            f"{where}: has none of the {len(names)} photographs, {absent[0]!r} first"
            f"{suggest(absent[0], there)}; give the folder below which they have these "
            "names"
        )
    if absent:
        logger.warning(
            "%s: lacks %d of %d photographs, %r first; what they show is not used",
            *(where, len(absent), len(names), absent[0]),
        )


def find_photos(folders: Sequence[Path], names: Iterable[str]) -> dict[str, Path]:
    """Find photographs by their names, each in the first of the folders that has it.

    Raises InputError that names those that are in none.
    """
    found, absent = {}, []
    for name in names:
        paths = (folder / name for folder in folders)
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            absent.append(name)
        else:
            found[name] = path
    if absent:
        named = ", ".join(map(repr, absent[:3]))
        more = f" and {len(absent) - 3} more" if len(absent) > 3 else ""
        raise InputError(
            f"{', '.join(map(str, folders))}: lacks {len(absent)} of "
            f"{len(absent) + len(found)} photographs of the model: {named}{more}; give "
            "the folder below which they have these names with --images"
        )
    return found


def read_list(path: Path) -> list[str]:
    """Read names from a text file, one a line, sorted; # begins a comment."""
    return sorted(set(read_lines(path)))


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text file that say something, stripped; # is a comment."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give a text file of image names")
    try:
        # Some editors on Windows begin a file with a mark, which is no part of a name.
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is not text in UTF-8; give a text file of image names"
        ) from error
    found = [s for line in lines if (s := line.strip()) and not s.startswith("#")]
    if not found:
        raise InputError(f"{path}: names no image; put one name on each line")
    return found


def _read_image_list(folder: Path, image_list: Path) -> list[str]:
    names = sorted({_make_relative(s, folder) for s in read_list(image_list)})
    for name in names:
        if name.startswith(("/", "../")):
            raise InputError(
                f"{image_list}: names {name!r}, which lies outside {folder}; give the "
                "folder that holds all of them"
            )
        if not (folder / name).is_file():
            files = (path for path in folder.rglob("*") if path.is_file())
            there = [path.relative_to(folder).as_posix() for path in files]
            raise InputError(
                f"{image_list}: names {name!r}, which is not in {folder}"
                f"{suggest(name, there)}; names are relative to that folder"
            )
    return names


def _make_relative(name: str, folder: Path) -> str:
    """Name an image as the folder's listing does, as `find` may list it otherwise."""
    path = Path(os.path.normpath(name))
    for parent in (folder.absolute(), folder.resolve()):
        if path.is_relative_to(parent):
            return path.relative_to(parent).as_posix()
    return path.as_posix()


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder, each folder once, be it there or behind a link.

    Links come last, so that what is really there has its own name. Outputs of ours are
    passed over: their pictures are no photographs.
    """
    seen, waiting = set(), [folder]
    while waiting:
        for here, folders, files in os.walk(waiting.pop(0), onerror=_tell_unread):
            where = Path(here).resolve()
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if where in seen:
                folders.clear()
                continue
            seen.add(where)
            if {LOCK, MARK} & {*files} and not where.samefile(folder):
                logger.warning("%s: left out, as a run of sfm-features wrote it", here)
                folders.clear()
                continue
            paths = [Path(here) / name for name in folders]
            waiting += [path for path in paths if path.is_symlink()]
            yield from (Path(here) / name for name in files if name[0] != ".")


def _tell_unread(error: OSError) -> None:
    logger.warning("%s: left out, cannot be read (%s)", error.filename, error.strerror)
