"""Files are whole or absent, with the rights that the umask gives, however many write at once."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from research.durable import write_whole


def test_a_file_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "file.txt"
    write_whole(path, "Zürich")
    assert path.read_bytes() == "Zürich".encode()
    write_whole(path, b"other")
    assert path.read_bytes() == b"other"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_whole(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read_it(tmp_path: Path, umask: int) -> None:
    code = (
        "import os, sys; from pathlib import Path; from research.durable import write_whole;"
        "os.umask(int(sys.argv[2])); write_whole(Path(sys.argv[1]), 'x')"
    )
    path = tmp_path / "file.txt"
    subprocess.run([sys.executable, "-c", code, str(path), str(umask)], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


def test_the_umask_of_the_process_is_never_touched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It belongs to the whole process: to read it is to set it, for every thread at that moment."""

    def touched(_: int) -> int:
        raise AssertionError("umask")

    monkeypatch.setattr(os, "umask", touched)
    write_whole(tmp_path / "file.txt", "x")


def test_many_writers_of_one_file_leave_one_of_their_contents(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    texts = [str(i) * 10_000 for i in range(8)]
    writers = [threading.Thread(target=write_whole, args=(path, text)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_name_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 250)
    write_whole(path, "x")
    assert path.read_text() == "x"
