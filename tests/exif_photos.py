"""Photographs with EXIF, made by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np

_ASCII, _SHORT, _LONG, _RATIONAL, _BYTE = 2, 3, 4, 5, 1
_EXIF_DIRECTORY, _GPS_DIRECTORY = 0x8769, 0x8825
Entry = tuple[int, int, int, bytes]


def write_photo(
    path: Path,
    size: tuple[int, int],
    model: str | None = None,
    focal_35mm: int | None = None,
    gps: tuple[float, ...] | None = None,
) -> None:
    """Write a grey photograph; with a model, focal length or position if JPEG.

    A position is latitude, longitude and, unless it is left out, altitude.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), 128, np.uint8)
    content = cv2.imencode(path.suffix, pixels)[1].tobytes()
    if model is not None or gps is not None:
        body = b"Exif\0\0" + _tiff(model, focal_35mm, gps)
        segment = b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body
        content = content[:2] + segment + content[2:]
    path.write_bytes(content)


def _tiff(
    model: str | None, focal_35mm: int | None, gps: tuple[float, ...] | None
) -> bytes:
    """Lay out the main directory, then EXIF's, then GPS's."""
    main: list[Entry] = []
    if model is not None:
        main += [_text(0x010F, "Maker"), _text(0x0110, model)]
    exif: list[Entry] = []
    if focal_35mm is not None:
        exif = [(0xA405, _SHORT, 1, struct.pack("<H", focal_35mm))]
    where = [] if gps is None else _gps_entries(*gps)
    pointers = [(_EXIF_DIRECTORY, exif), (_GPS_DIRECTORY, where)]
    offsets = {tag: 0 for tag, entries in pointers if entries}

    def build() -> bytes:
        links = [(t, _LONG, 1, struct.pack("<I", at)) for t, at in offsets.items()]
        data = b"II*\0" + struct.pack("<I", 8)
        data += _directory([*main, *links], len(data))
        for tag, entries in pointers:
            if entries:
                offsets[tag] = len(data)
                data += _directory(entries, len(data))
        return data

    build()  # once to learn the offsets, once to write them
    return build()


def _text(tag: int, text: str) -> Entry:
    value = text.encode() + b"\0"
    return tag, _ASCII, len(value), value


def _gps_entries(
    latitude: float, longitude: float, altitude: float | None = None
) -> list[Entry]:
    def degrees(value: float) -> bytes:
        return struct.pack("<6I", round(abs(value) * 10**6), 10**6, 0, 1, 0, 1)

    where = [
        _text(1, "N" if latitude >= 0 else "S"),
        (2, _RATIONAL, 3, degrees(latitude)),
        _text(3, "E" if longitude >= 0 else "W"),
        (4, _RATIONAL, 3, degrees(longitude)),
    ]
    if altitude is None:
        return where
    height = struct.pack("<2I", round(abs(altitude) * 1000), 1000)
    return [
        *where,
        (5, _BYTE, 1, bytes([altitude < 0])),
        (6, _RATIONAL, 1, height),
    ]


def _directory(entries: list[Entry], offset: int) -> bytes:
    """Lay out a directory at an offset, and after it the values that do not fit."""
    head = struct.pack("<H", len(entries))
    tail = b""
    after = offset + 2 + 12 * len(entries) + 4
    for tag, kind, count, value in entries:
        if len(value) > 4:
            place = struct.pack("<I", after + len(tail))
            tail += value + b"\0" * (len(value) % 2)
        else:
            place = value.ljust(4, b"\0")
        head += struct.pack("<HHI", tag, kind, count) + place
    return head + b"\0\0\0\0" + tail
