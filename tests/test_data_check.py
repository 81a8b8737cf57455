"""`petl data check`: what is in a list of recordings, and whether it may be used."""

import json
import shutil

import pytest
from conftest import tone

from petl_modules.data.check import main


@pytest.fixture
def folder(tmp_path):
    """Eight clips of two classes in two splits, one of them at another rate."""
    lines = ["path,label,speaker,split"]
    for number in range(8):
        rate = 8000 if number == 7 else 16000
        tone(tmp_path / f"{number}.wav", 300 + 99 * number, 1.0, rate, seed=number)
        split = "train" if number < 4 else "dev"
        label, speaker = "xy"[number % 2], number // 2
        lines.append(f"{number}.wav,{label},s{speaker},{split}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    return tmp_path


def checked(folder, capsys, *options):
    status = main(["check", str(folder / "all.csv"), *options])
    return status, capsys.readouterr().out


def test_a_sound_list(folder, capsys):
    status, said = checked(
        folder, capsys, f"--plots={folder / 'png'}", f"--html={folder / 'a.html'}"
    )
    assert status == 0
    for part in (
        "8 clips, 0.00 h",
        "shortest 1.00 s",
        "16000 Hz: 7, 8000 Hz: 1",
        "train     4 clips",
        "valid     4 clips",
    ):
        assert part in said
    (row,) = [line.split() for line in said.splitlines() if line.startswith("x ")]
    assert row == ["x", "4", "0.1", "2", "2"]
    for name in ("lengths", "labels"):
        assert (folder / "png" / f"{name}.png").stat().st_size > 3000
    page = (folder / "a.html").read_text()
    assert page.count("data:image/png") == 2 and "16000 Hz: 7" in page
    status, said = checked(folder, capsys, "--json", "--group_column=speaker")
    found = json.loads(said)
    assert status == 0 and found["labels"] == {"x": 4, "y": 4}
    assert found["splits"] == {"train": 4, "valid": 4}


def test_what_is_broken_is_named_and_the_rest_counted(folder, capsys):
    with open(folder / "all.csv", "a") as stream:
        stream.write("\n3.wav,x,s9,train\n8.wav,x,s9,train\n../9.wav,x,s9,train\n")
        stream.write("bad.wav,x,s9,train\n")
    (folder / "bad.wav").write_bytes(b"RIFF and nothing")
    status, said = checked(folder, capsys)
    assert status == 1
    assert "8 clips" in said and "broken (4):" in said
    for part in (
        "line 10, repeats 3.wav",
        "8.wav is missing",
        "line 12, names a file outside",
        "bad.wav cannot be read",
    ):
        assert part in said


def test_the_same_in_two_splits_leaks(folder, capsys):
    shutil.copy(folder / "0.wav", folder / "again.wav")
    shutil.copy(folder / "0.wav", folder / "twice.wav")
    table = (folder / "all.csv").read_text()
    (folder / "all.csv").write_text(f"{table}\nagain.wav,x,s0,train\n")
    status, said = checked(folder, capsys)
    assert status == 0 and "there twice (1):" in said
    (folder / "all.csv").write_text(f"{table}\ntwice.wav,x,s3,dev\n")
    status, said = checked(folder, capsys)
    assert status == 1
    assert "twice.wav is the same recording as 0.wav, and they are in" in said
    (folder / "all.csv").write_text(table.replace("s3,dev", "s1,dev"))
    assert checked(folder, capsys)[0] == 0  # nobody said what the column is
    status, said = checked(folder, capsys, "--group_column=speaker")
    assert status == 1 and "The group s1 is in train and valid." in said


def test_what_training_would_not_hear(folder, capsys):
    tone(folder / "7.wav", 400, 3.0)
    status, said = checked(folder, capsys, "--max_duration=2")
    assert status == 0
    assert "1 clips of 0.00 h are longer than max_duration=2 and would be cut" in said


def test_folders_and_what_would_be_left_out(folder, capsys):
    for number in range(8):
        home = folder / "clips" / ("a" if number < 7 else "b")
        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / f"{number}.wav", home)
    options = ["--task=classification", "--min_clips=2", "--rare=drop"]
    status = main(["check", str(folder / "clips"), *options])
    said = capsys.readouterr().out
    assert status == 0 and "7 clips" in said and "left out (1):" in said
    assert "b has 1 clips" in said
