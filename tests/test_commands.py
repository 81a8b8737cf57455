"""The door: every command by its name, with help in whole sentences, and cheap."""

import json
import subprocess
import sys
from importlib import import_module

import pytest
from conftest import ROOT
from torch.distributed.elastic.multiprocessing.errors import (
    ChildFailedError,
    ProcessFailure,
)

from petl_modules import commands, console
from petl_modules.errors import UserError
from petl_modules.train.recipes import recipe_folder

# Commands with a parser of their own; the others print what their yaml holds
PARSED = sorted(set(commands.COMMANDS) - {"train", "describe"})
HEAVY = ("torch", "transformers", "speechbrain", "numpy", "matplotlib", "yaml")


def imported(*argv):
    """The heavy modules that a command line through the door imports."""
    program = (
        "import atexit, json, sys\n"
        f"atexit.register(lambda: print(json.dumps([*sys.modules])))\n"
        f"from petl_modules.commands import main\nmain({list(argv)!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    modules = json.loads(done.stdout.splitlines()[-1])
    return done, {name for name in HEAVY if name in modules}


def test_help_lists_every_command_and_imports_nothing_heavy():
    done, heavy = imported("--help")
    assert done.returncode == 0, done.stderr
    for name, command in commands.COMMANDS.items():
        (row,) = [x for x in done.stdout.splitlines() if x.startswith(f"  {name} ")]
        assert command.does in row
    assert not heavy


def test_an_unknown_command_names_the_nearest_and_imports_nothing_heavy():
    done, heavy = imported("benchmrk")
    assert done.returncode == 2 and not heavy
    assert done.stderr == (
        "error: There is no command benchmrk. Did you mean petl benchmark?\n"
    )


def test_training_by_name_needs_no_torch_to_name_a_recipe():
    done, heavy = imported("train", "ESC51")
    assert done.returncode == 2 and "There is no recipe ESC51" in done.stderr
    assert not heavy


def test_a_recipe_is_trained_by_its_name(capfd):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["petl", "train"])
        patch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit) as stop:
            commands.main(["train", "ESC50", "--rnak=3"])
    assert stop.value.code == 2
    assert "no option --rnak. Did you mean --rank?" in capfd.readouterr().err
    assert (recipe_folder("LibriSpeech/ASR") / "train.py").is_file()


@pytest.mark.parametrize("name", sorted(commands.COMMANDS))
def test_a_command_is_where_the_table_says(name):
    assert callable(import_module(commands.COMMANDS[name].module).main)


@pytest.mark.parametrize(
    "name",
    [
        "benchmark",
        "report",
        "search",
        "speed",
        "demo",
        "export",
        "merge",
        "peft_format",
        "predict",
        "describe",
        "synthesize",
    ],
)
def test_python_m_runs_the_command_of_that_name(name, monkeypatch):
    started = []
    monkeypatch.setattr(commands, "command", started.append)
    monkeypatch.setattr(sys, "argv", [f"/somewhere/petl_modules/{name}.py", "--x"])
    text = (ROOT / "petl_modules" / f"{name}.py").read_text()
    exec(compile(text, name, "exec"), {"__name__": "__main__"})
    known = "peft" if name == "peft_format" else name
    assert started == [commands.COMMANDS[known].module]
    assert sys.argv == [f"python -m petl_modules.{name}", "--x"]


@pytest.mark.parametrize("name", PARSED)
def test_help_is_whole_sentences(name, monkeypatch):
    parsers = []

    def parse(parser, *_):
        parsers.append(parser)
        raise KeyboardInterrupt

    monkeypatch.setattr(console.Parser, "parse_args", parse)
    monkeypatch.setattr(console.Parser, "parse_known_args", parse)
    with pytest.raises(KeyboardInterrupt):
        import_module(commands.COMMANDS[name].module).main(["--x"])
    (parser,) = parsers
    for text in (parser.description, *(action.help for action in parser._actions)):
        assert text and text.strip()[0].isupper() and text.strip().endswith("."), text
    assert parser.format_help()  # no stray % in it


@pytest.mark.parametrize("name", sorted({*PARSED} - {"search"}))
def test_an_unknown_option_names_the_nearest(name):
    main = import_module(commands.COMMANDS[name].module).main
    with pytest.raises(UserError, match=r"There is no option --hlep. Did .* --help\?"):
        main(["--hlep"])


def test_a_parser_refuses_in_one_sentence():
    parser = console.Parser("It does.", prog="petl it")
    parser.add_argument("folder")
    parser.add_argument("--size", type=console.above_zero, default=3)
    parser.add_argument("--port", type=console.port)
    for argv, words in (
        ([], "The following arguments are required: folder; see petl it --help."),
        (["a", "b"], "b is one too many; see petl it --help."),
        (["a", "--size=0"], "Argument --size: 0 is no whole number above 0; see"),
        (["a", "--size=x"], "Argument --size: x is no whole number above 0; see"),
        (["a", "--port=0"], "Argument --port: 0 is no port: they go from 1 to 65535"),
        (["a", "--port=65536"], "65536 is no port"),
        (["a", "--size="], "--size is empty: is a variable of the shell not set?"),
        ([""], "There is an argument that is empty: is a variable"),
    ):
        with pytest.raises(UserError, match=words):
            parser.parse_args(argv)
    assert parser.parse_args(["a", "--size", "2"]).size == 2


def test_a_place_that_cannot_be_used_is_one_sentence(tmp_path, capsys):
    (tmp_path / "a\nfile").touch()
    for place, words in (("a\nfile/x", "Not a directory"), ("no/x", "No such file")):
        with pytest.raises(SystemExit) as stop, console.refusing():
            (tmp_path / place).write_text("")
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.startswith("error: ")
        assert words in error and error.count("\n") == 1
    for error in (MemoryError(), RuntimeError("CUDA out of memory. Tried")):
        with pytest.raises(SystemExit), console.refusing():
            raise error
        assert "error: There is not enough memory: lower" in capsys.readouterr().err
    with pytest.raises(OSError), console.refusing():  # what is nobody's mistake
        raise OSError("no place")


@pytest.mark.parametrize("inside", [None, ImportError])
def test_what_the_user_stops_ends_in_one_sentence(inside, capsys):
    """Also where that breaks an import off, which fails in its own way."""
    with pytest.raises(SystemExit) as end, console.refusing():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise (inside or KeyboardInterrupt) from None
    assert end.value.code == 130
    assert capsys.readouterr().err == "\nStopped. The same command goes on from here.\n"


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(OSError, match="9"), console.refusing():
        raise OSError(9, "Bad file descriptor")


def test_torchrun_names_the_sentence_as_the_cause(tmp_path, monkeypatch):
    """Whose traceback comes after it."""
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    with pytest.raises(SystemExit) as end, console.refusing():
        raise UserError("There is no fold 9.")
    failed = ProcessFailure(0, 1, end.value.code, str(tmp_path / "error.json"))
    said = str(ChildFailedError("train.py", {0: failed}))
    assert "traceback : There is no fold 9.\n" in said and "exitcode  : 2" in said
