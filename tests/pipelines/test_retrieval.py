"""Labels of what shows the same, recall by hand, and both commands at tiny sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from miniature import CPU, read_rows, write_photos
from samples import make_texture, write_image
from small_town import SmallTown

from pipelines import retrieval
from pipelines.benchmarks.covisible import find_model_neighbours, find_neighbours
from pipelines.benchmarks.ranking import measure_ranking
from pipelines.benchmarks.retrieving import (
    CENTRED,
    OURS,
    PLAIN,
    Recall,
    compare_descriptors,
    measure_recall,
)
from sfm_features.store import GlobalStore


def _write(path: Path, angles_deg: dict[str, float]) -> Path:
    """Write descriptors on a circle: the nearest are those of like angle."""
    with GlobalStore.append(path, {}) as store:
        for name, angle in angles_deg.items():
            turn = np.radians(angle)
            store.write(name, np.array([np.cos(turn), np.sin(turn)], np.float32))
    return path


def test_recall_is_that_of_the_definition(tmp_path: Path) -> None:
    """Sixteen images on a circle; a query finds the five on either side of it."""
    angles = {f"{i:02d}": 22.5 * i for i in range(16)}
    path = _write(tmp_path / "g.h5", angles)
    near = {f"{i % 16:02d}" for i in (-2, -1, 1, 2)}
    covisible = {
        "00": near,  # all four are found
        "01": {"02", "09"},  # what is opposite is not
        "02": {f"{i:02d}" for i in range(16) if i != 2},  # ten of fifteen: all there is
        "03": {"11"},
        "04": set(),  # has nothing to find, so it is not asked for
    }
    found = measure_recall(path, sorted(angles), covisible)
    assert [recall.share for recall in found] == [1, 0.5, 1, 0]
    assert found[0] == Recall(1, True) and found[3] == Recall(0, False)


def test_the_better_one_is_known_by_its_misses(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    angles = {f"{i:02d}": 10.0 * i for i in range(36)}
    shuffled = rng.permutation(list(angles.values()))
    good = _write(tmp_path / "good.h5", angles)
    bad = _write(tmp_path / "bad.h5", dict(zip(angles, shuffled, strict=True)))
    names, steps = sorted(angles), (-2, -1, 1, 2)
    around = {n: {names[(i + k) % 36] for k in steps} for i, n in enumerate(names)}
    for ours, plain, verdict in ((good, bad, "met"), (bad, bad, "MISSED")):
        ways = {OURS: ours, PLAIN: plain, CENTRED: plain}
        result = compare_descriptors("Circle", ways, names, {"around": around})
        assert verdict in result.checks[0].to_text()
    assert result.rows[0]["queries"] == "36 around" and result.rows[0]["covisible"] == 4


def test_depth_tells_what_shows_the_same(small_town: SmallTown) -> None:
    views = {f"{i:02d}": photo for i, photo in small_town.day.items()}
    found = find_neighbours(views, {name: v.depth for name, v in views.items()})
    names = sorted(views)
    for a, b in zip(names, names[1:], strict=False):
        assert b in found[a] and a in found[b]
    # Half a round further one looks at the other side of the square, or from there.
    assert names[-1] not in found[names[0]]
    assert all(name not in others for name, others in found.items())


def test_places_are_labelled_and_found_among_others(
    small_town: SmallTown, tmp_path: Path
) -> None:
    """Five views of the square among a dozen pictures of nothing."""
    square, others, output = (tmp_path / n for n in ("square", "others", "out"))
    write_photos(square, {f"{i}.jpg": small_town.day[i] for i in range(5)})
    for i in range(12):
        write_image(others / f"{i}.png", make_texture((240, 180), i))
    given = ["--distractors", str(others), "--output", str(output), *CPU]
    assert retrieval.main([str(square), *given]) == 0
    place, total = read_rows(output, "retrieval-places")
    assert place["queries"] == "5 square"
    assert place["recall@10, ours"] == total["recall@10, ours"] == 1
    labels = find_model_neighbours(output / "places/square/sparse")
    assert len(labels) == 5 and all("1.jpg" in labels[f"{i}.jpg"] for i in (0, 2))
    assert retrieval.main([str(square), str(square), *given]) == 2  # one name, twice


def test_ranking_is_measured_and_checked(tmp_path: Path) -> None:
    result = measure_ranking(tmp_path, sizes=(40, 80), dim=64, queries=8)
    assert [row["first right"] for row in result.rows] == [1, 1]
    assert 0.02 < result.checks[0].value < 1  # the peak of a process without torch
    assert result.checks[2].value == 0
    assert not list(tmp_path.iterdir())
