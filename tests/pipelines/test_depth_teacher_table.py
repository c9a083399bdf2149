"""The comparison with and without a depth teacher, in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipelines.benchmarks import depth_teacher, results
from pipelines.benchmarks.depth_teacher import (
    START,
    WITHOUT,
    Scale,
    Variant,
    measure_depth_teacher,
)
from sfm_features.errors import OptionError
from sfm_features.training import turntables

TINY = Scale(1, 1, turntables=1, batch=1, crop_px=64, unseen=1)


def test_students_share_a_teacher_and_what_is_done_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, views in ((depth_teacher, "_OWN_VIEWS"), (turntables, "_VIEWS")):
        monkeypatch.setattr(module, "_SIZE", (160, 120))
        monkeypatch.setattr(module, views, 4)
    variants = [Variant.parse("up2=1"), Variant.parse("up4+up2=0.5")]
    found = measure_depth_teacher(tmp_path, variants, TINY, seeds=(3,))
    names = [row["embeddings held to the teacher's"] for row in found.rows]
    assert names == [START, WITHOUT, "up2, weight 1", "up4+up2, weight 0.5"]
    for row in found.rows:
        shares = [float(str(value)) for value in list(row.values())[1:]]
        assert len(shares) == 5 and all(0 <= share <= 1 for share in shares)
    one, other = (
        tmp_path / f"seed3/{name}" for name in ("up2-weight-1", "up4+up2-weight-0.5")
    )
    assert not (tmp_path / "seed3/no-teacher/teacher").exists()
    for file in ("log.jsonl", "weights.json"):
        assert (one / file).exists() and (other / file).exists()
    trained = [json.loads(x) for x in (other / "log.jsonl").read_text().splitlines()]
    assert trained[-1]["step"] == 1
    log = (one / "teacher/log.jsonl").read_text()
    assert (other / "teacher/log.jsonl").read_text().startswith(log)
    (one / "weights.safetensors").unlink()
    again = measure_depth_teacher(tmp_path, variants, TINY, seeds=(3,))
    assert again.rows == found.rows


def test_misspelt_variants_are_refused() -> None:
    for text in ("up2", "up9=1", "up2=0", "up2=much", "=1"):
        with pytest.raises(OptionError, match=text):
            Variant.parse(text)


def test_the_tables_have_their_sections() -> None:
    text = (results.ROOT / "docs" / "objects.md").read_text()
    for name in ("depth-teacher", "depth-teacher-light"):
        assert text.count(f"<!-- begin {name} -->\n") == 1
        assert text.count(f"\n<!-- end {name} -->") == 1
