"""Files are there whole or not at all, and say every name as it was."""

import errno
import json
import os
import threading

import numpy as np
import pytest
import soundfile
import torch
from conftest import limited
from safetensors.torch import load_file, save_file

from petl_modules.console import refusing
from petl_modules.data.tensor_cache import TensorCache
from petl_modules.errors import UserError
from petl_modules.files import (
    listing,
    lock,
    remove_partial,
    whole,
    whole_folder,
    write_json,
    write_tensors,
    write_text,
)


def test_what_fails_halfway_leaves_what_was_there(tmp_path):
    write_text(tmp_path / "a.txt", "before")
    with pytest.raises(RuntimeError), whole(tmp_path / "a.txt") as partial:
        partial.write_text("half of")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "before"


def test_several_writers_leave_one_whole_file(tmp_path):
    texts = [str(i) * 50_000 for i in range(8)]
    threads = [
        threading.Thread(target=write_text, args=(tmp_path / "a.txt", text))
        for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "a.txt").read_text() in texts
    assert len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/x cannot be made: Not a directory"):
        write_text(tmp_path / "file" / "x" / "a.txt", "")
    refused = pytest.raises(UserError, match="cannot be written: No space")
    with refused, whole(tmp_path / "a.txt") as partial:
        partial.symlink_to("/dev/full")
        partial.write_text("more than there is room for" * 1000)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_names_that_are_no_utf8_come_back_from_json(tmp_path):
    name = os.fsdecode(b"caf\xe9.wav")
    write_json(tmp_path / "a.json", {name: "Vögel\u2028鳥"})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {name: "Vögel\u2028鳥"}


def test_tensors_are_for_whoever_may_read_the_folder(tmp_path):
    write_tensors(tmp_path / "a.safetensors", {"x": torch.arange(6).view(2, 3).T})
    write_text(tmp_path / "a.txt", "")
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1
    assert load_file(tmp_path / "a.safetensors")["x"].shape == (3, 2)


def test_a_damaged_part_of_a_cache_is_computed_again(tmp_path):
    TensorCache(tmp_path).add({"a": torch.ones(2)})
    TensorCache(tmp_path).add({"b": torch.zeros(2)})
    cache = TensorCache(tmp_path)
    assert "a" in cache and cache["b"].equal(torch.zeros(2))
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:20])
    assert "a" not in TensorCache(tmp_path)


def test_a_listing_changes_with_a_file(tmp_path):
    (tmp_path / "a").write_text("x")
    before = listing([tmp_path / "a", tmp_path / "gone"])
    assert before[1] == [str(tmp_path / "gone"), 0, 0]
    os.utime(tmp_path / "a", (1, 1))
    assert listing([tmp_path / "a", tmp_path / "gone"]) != before


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), whole_folder(tmp_path / "a") as partial:
        (partial / "one").touch()
        raise RuntimeError
    with (
        pytest.raises(UserError, match="a cannot be written: No space left"),
        whole_folder(tmp_path / "a") as partial,
    ):
        write_text(partial / "one", "")
        raise OSError(errno.ENOSPC, "No space left on device")
    refused = pytest.raises(UserError, match=r"/a/one/two cannot be made")
    with refused, whole_folder(tmp_path / "a") as partial:
        write_text(partial / "one", "")
        write_text(partial / "one" / "two" / "three", "")
    assert not list(tmp_path.iterdir())
    with whole_folder(tmp_path / "a") as partial:
        write_text(partial / "one", "")
    assert [path.name for path in tmp_path.rglob("*")] == ["a", "one"]
    refused = pytest.raises(UserError, match="holds something already")
    with refused, whole_folder(tmp_path / "a"):
        pass


def test_libraries_that_find_no_room_end_in_one_sentence(tmp_path, capsys):
    """Wherever a command writes, and whatever writes for it."""
    for write in (
        lambda path: torch.save({"a": torch.ones(99_999)}, path),
        lambda path: save_file({"a": torch.ones(99_999)}, path),
        lambda path: soundfile.write(path, np.zeros(99_999), 16000, format="WAV"),
        lambda path: np.savez(path, np.zeros(99_999)),
    ):
        with limited(2**12), pytest.raises(SystemExit) as end, refusing():
            write(tmp_path / "a.bin")
        said = capsys.readouterr().err
        assert end.value.code == 2, said
        assert said.startswith("error: ") and len(said.splitlines()) == 1, said


@pytest.mark.parametrize("name", ["ENOLCK", "ENOSYS", "EOPNOTSUPP", "EIO"])
def test_a_file_system_without_locks_is_used_with_a_warning(
    name, tmp_path, monkeypatch, caplog
):
    code = getattr(errno, name)

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", flock)
    if name == "EIO":
        with pytest.raises(OSError, match="Input/output"), lock(tmp_path / "run.lock"):
            pass
        return
    with lock(tmp_path / "run.lock") as held:
        assert not held.closed
    assert f"The file system of {tmp_path} has no locks" in caplog.text


def test_what_killed_processes_had_begun_is_removed(tmp_path):
    for name in (".0123456789ab.partial.json", "b/.0123456789ab.partial", "b/kept"):
        write_text(tmp_path / name, "")
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["b", "kept"]
