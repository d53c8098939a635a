"""Files are written whole or not at all."""

import pytest

from jobs.lake import disk


def test_a_failed_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "report.html"
    disk.write_whole(path, "old")
    monkeypatch.setattr(disk.os, "replace", lambda *paths: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        disk.write_whole(path, "new")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
