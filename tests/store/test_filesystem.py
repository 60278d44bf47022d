"""Atomic writes, locks, scratch folders and checksums."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import stat

import pytest

from salibi_data.store.errors import StoreError
from salibi_data.store.filesystem import (
    ScratchFolder,
    file_sha256,
    hold_lock,
    remove_partials,
    write_atomically,
)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "notes.json"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError), write_atomically(path) as partial:
        partial.write_text("half \udc80", encoding="utf-8")
    assert path.read_text() == "old"
    with write_atomically(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.json"]


def test_a_file_has_the_mode_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        with write_atomically(tmp_path / "shared") as partial:
            partial.write_text("content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "shared").stat().st_mode) == 0o640


def test_what_killed_processes_left_is_removed(tmp_path):
    left = tmp_path / "deeper/.model.safetensors.0123.partial"
    left.parent.mkdir()
    left.write_text("half")
    (tmp_path / "deeper/model.safetensors").write_text("whole")
    remove_partials(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["", "lock"])
def test_a_lock_is_held_once(tmp_path, name):
    path = tmp_path / name
    with (
        hold_lock(path, busy=StoreError("first")),
        pytest.raises(StoreError, match="second"),
        hold_lock(path, busy=StoreError("second")),
    ):
        pass
    with hold_lock(path, busy=StoreError("third")):
        pass


@pytest.mark.parametrize("name", ["", "lock"])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_file_systems_without_locks_are_written_to(tmp_path, monkeypatch, name, number):
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    lock = hold_lock(tmp_path / name, busy=StoreError("busy"))
    if number == errno.ENOLCK:
        with lock:
            return
    with pytest.raises(OSError, match=os.strerror(number)), lock:
        pass


def test_a_scratch_folder_goes_with_its_object():
    with ScratchFolder("salibi-test-") as scratch:
        (scratch.path / "file").write_text("content")
        assert stat.S_IMODE(scratch.path.stat().st_mode) == 0o700
    assert not scratch.path.exists()


def test_a_checksum_is_that_of_the_content(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "file").write_bytes(content)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()
