"""Results: there whole or not at all, and over nothing that we did not make."""

from __future__ import annotations

from pathlib import Path

import pytest
from samples import make_texture, write_image

from sfm_features.drafts import MARK, publish_folder, refuse_overlap
from sfm_features.errors import BusyStore, InputError, OutputError
from sfm_features.photo_files import list_images


def _publish(output: Path, *names: str) -> None:
    with publish_folder(output, "export") as draft:
        for name in names:
            (draft / name).parent.mkdir(parents=True, exist_ok=True)
            (draft / name).write_text(name)


def test_an_earlier_result_is_replaced_as_a_whole(tmp_path: Path) -> None:
    output = tmp_path / "new" / "out"
    _publish(output, "a/1.txt", "a/2.txt")
    _publish(output, "a/2.txt", "b")
    found = {p.relative_to(output).as_posix() for p in output.rglob("*") if p.is_file()}
    assert found == {"a/2.txt", "b", MARK}
    assert [path.name for path in output.parent.iterdir()] == ["out"]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    output = tmp_path / "out"
    for before in ([], ["out"]):
        with pytest.raises(RuntimeError), publish_folder(output, "export") as draft:
            (draft / "half").touch()
            raise RuntimeError
        assert [path.name for path in tmp_path.iterdir()] == before
        _publish(output, "a")
    assert (output / "a").is_file()


def test_a_killed_run_does_not_stay(tmp_path: Path) -> None:
    left = tmp_path / ".out.work" / "draft" / "half"
    left.parent.mkdir(parents=True)
    left.touch()
    _publish(tmp_path / "out", "a")
    assert not (tmp_path / "out" / "half").exists()
    assert not left.exists()


def test_what_others_made_or_added_is_not_deleted(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    _publish(mine, "a")  # an empty folder is in nobody's way
    (mine / "added").write_text("x")
    theirs = tmp_path / "theirs" / "deep" / "file"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    (tmp_path / "theirs" / MARK).write_text('{"files": 7}')
    file = tmp_path / "file"
    file.touch()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    for output in (mine, tmp_path / "theirs", file, link):
        with pytest.raises(OutputError, match="choose another --output"):
            _publish(output, "b")
    (mine / "added").unlink()
    with (
        pytest.raises(OutputError, match="an earlier `sfm-features georegister`"),
        publish_folder(mine, "georegister"),
    ):
        pass
    assert (mine / "a").is_file() and theirs.is_file()
    assert file.is_file() and link.is_symlink()


def test_two_do_not_write_one_result(tmp_path: Path) -> None:
    output = tmp_path / "out"
    said = f"{output}: another process"
    with publish_folder(output, "export"), pytest.raises(BusyStore, match=said):
        _publish(output, "a")


def test_errors_name_what_the_user_asked_for(tmp_path: Path) -> None:
    output = tmp_path / "out"
    said = f"^{output}/sparse: the disk is full"
    with (
        pytest.raises(OutputError, match=said),
        publish_folder(output, "export") as draft,
    ):
        raise OutputError(f"{draft / 'sparse'}: the disk is full")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=f"^{tmp_path}/file/out: its folder"):
        _publish(tmp_path / "file" / "out", "a")


def test_inputs_are_neither_in_an_output_nor_around_it(tmp_path: Path) -> None:
    (tmp_path / "in" / "sparse").mkdir(parents=True)
    refuse_overlap(tmp_path / "input", tmp_path / "in", tmp_path / "photos")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "in")
    for output in (tmp_path / "in", tmp_path / "in" / "new", link / "sparse" / "0"):
        with pytest.raises(InputError, match="stays as it is"):
            refuse_overlap(output, tmp_path / "photos", tmp_path / "in")
    with pytest.raises(InputError, match="would be replaced"):
        refuse_overlap(tmp_path / "in", tmp_path / "in" / "sparse")


def test_results_among_photographs_are_passed_over(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", make_texture())
    with publish_folder(tmp_path / "flat", "export") as draft:
        write_image(draft / "images" / "a.png", make_texture())
    assert list_images(tmp_path) == ["a.png"]
    assert list_images(tmp_path / "flat") == ["images/a.png"]
