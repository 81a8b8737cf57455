"""What is in a data folder is found: links, dangling ones, and equal names."""

import os

import pytest
from conftest import tone

from petl_modules import data
from petl_modules.console import refusing
from petl_modules.errors import UserError


@pytest.fixture
def tree(tmp_path):
    """A data folder that links to a store beside it."""
    store, root = tmp_path / "store", tmp_path / "data"
    tone(store / "dog" / "a.wav", 300)
    tone(store / "b.wav", 300)
    (root / "cat").mkdir(parents=True)
    (root / "dog").symlink_to(store / "dog")
    (root / "cat" / "b.wav").symlink_to(store / "b.wav")
    (root / "cat" / "gone.wav").symlink_to(store / "gone.wav")
    (root / "cat" / ".hidden.wav").touch()
    (root / ".git").mkdir()
    (root / "cat" / "notes.txt").touch()
    return root


def test_linked_folders_and_links_that_lead_nowhere_are_found(tree):
    assert [path.name for path in data.folders_in(tree)] == ["cat", "dog"]
    assert [path.name for path in data.clips_in(tree / "cat")] == ["b.wav", "gone.wav"]
    found = [data.clip_id(tree, path) for path in data.files_below(tree)]
    assert found == ["cat/b.wav", "cat/gone.wav", "cat/notes.txt", "dog/a.wav"]


def test_links_that_go_round_are_named(tree):
    (tree / "dog" / "up").symlink_to(tree)
    with pytest.raises(UserError, match="dog/up leads back"):
        list(data.files_below(tree))


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tree):
    (tree / "cat").chmod(0)
    with pytest.raises(UserError, match="cat may not be read"):
        list(data.files_below(tree))


def test_texts_keep_the_line_ends_that_are_part_of_them(tmp_path):
    text = "one\u2028two\x85three\x0bfour\r\nfive\rsix\n\n"
    (tmp_path / "a.txt").write_bytes(text.encode())
    lines = ["one\u2028two\x85three\x0bfour", "five", "six"]
    assert data.read_lines(tmp_path / "a.txt") == lines


def test_older_lists_are_read_as_they_were_written(tmp_path):
    (tmp_path / "a.txt").write_bytes("l\u2019été, naïve".encode("cp1252"))
    assert data.read_lines(tmp_path / "a.txt") == ["l\u2019été, naïve"]
    (tmp_path / "a.csv").write_bytes("name,text\nx,caf\xe9\n".encode("latin-1"))
    assert data.read_table(tmp_path / "a.csv", ["name"])[0][1]["text"] == "café"
    for content in (b"\x00\x01binary\xff", b"\x81\x8d undefined"):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.txt is damaged"):
            data.read_lines(tmp_path / "a.txt")


def test_a_name_that_is_too_long_or_odd_is_refused_on_one_line(capsys):
    for name in ("x" * 300, "a\nb\u2028c", os.fsdecode(b"\xe9")):
        with pytest.raises(SystemExit), refusing():
            data.data_folder_of("My data", name, ".", "it must be there.")
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: The data folder ") and "does not exist" in line
