"""Many runs by one command: what is asked for, what runs, and what is left of it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import ROOT, limited
from tiny import epochs_logged

from petl_modules.errors import UserError
from petl_modules.grid import benchmark
from petl_modules.grid.benchmark import load_benchmark
from petl_modules.grid.jobs import failure, run_job

COMPLETE = {
    "metrics": {},
    "parameters": {},
    "seconds": 1.0,
    "peak_memory_mib": 1.0,
    "epochs": 1,
}


def write(path, **content):
    """A benchmark file; JSON is yaml."""
    path.write_text(json.dumps(content))
    return path


def test_jobs_are_all_combinations(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SOUNDS", str(tmp_path))
    file = write(
        tmp_path / "grid.yaml",
        recipes=[
            {"recipe": "ESC50", "data_folder": "$SOUNDS"},
            {"recipe": "ESD", "name": "speakers", "task": "speaker"},
        ],
        methods=["linear", {"method": "lora", "rank": 4, "targets": ["q"]}],
        variants=[{}, {"few_shot": 2}],
        seeds=[0, 7],
        overrides={"number_of_epochs": 1},
        output_folder=str(tmp_path / "out"),
    )
    jobs = load_benchmark(file).jobs
    assert len(jobs) == (5 + 1) * 2 * 2 * 2  # folds and none; methods, variants, seeds
    folders = {str(job.folder.relative_to(tmp_path / "out")) for job in jobs}
    assert len(folders) == len(jobs)
    assert "ESC50/linear/fold5_seed7_shot2" in folders
    assert 'speakers/rank=4,targets=["q"]/speaker/lora/run_seed0' in folders
    assert benchmark.main(["list", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(jobs)
    assert all(line.startswith("to do python ") for line in lines)
    (line,) = [
        line for line in lines if all(w in line for w in ("lora", "fold=3", "seed=7"))
        and "few_shot" not in line
    ]  # fmt: skip
    words = shlex.split(line.removeprefix("to do "))
    assert words[1].endswith("recipes/ESC50/train.py")
    assert set(words[3:]) == {
        "--number_of_epochs=1",
        f"--data_folder={tmp_path}",
        "--method=lora",
        "--rank=4",
        '--targets=["q"]',
        "--seed=7",
        "--fold=3",
        f"--cache_folder={tmp_path}/out/cache",
        f'--output_folder={tmp_path}/out/ESC50/rank=4,targets=["q"]',
    }


def test_own_seeds_count_before_those_of_all(tmp_path):
    own = {"lora": {"seeds": [4, 5, 6]}}
    file = write(
        tmp_path / "grid.yaml",
        recipes=[
            {"recipe": "ESD", "data_folder": "x", "task": "emotion", "methods": own},
            {"recipe": "SpeechCommands", "data_folder": "x", "seeds": [3]},
        ],
        methods=["linear", {"method": "lora", "seeds": [1, 2]}],
        output_folder=str(tmp_path / "out"),
    )
    for count in (3, 1):
        found = {}
        for job in load_benchmark(file, tiny=count == 1).jobs:
            key = job.recipe, job.config["method"]
            found.setdefault(key, []).append(job.config["seed"])
        assert found == {
            ("ESD", "linear"): [0],
            ("ESD", "lora"): [4, 5, 6][:count],
            ("SpeechCommands", "linear"): [3],
            ("SpeechCommands", "lora"): [1, 2][:count],
        }
    folders = {job.folder.parent for job in load_benchmark(file).jobs}
    assert {str(folder.relative_to(tmp_path / "out")) for folder in folders} == {
        *("ESD/emotion/linear", "ESD/emotion/lora"),
        *("SpeechCommands/linear", "SpeechCommands/lora"),
    }


@pytest.mark.parametrize(
    "file",
    [
        *("base_precision", "few_shot", "new_methods", "pictures", "small_sure"),
        *("small_sure_ours", "small_table1", "small_table1_ours", "whisper_tiny"),
    ],
)  # test_papers.py runs the others
def test_the_files_that_are_shipped_are_read(file, monkeypatch, tmp_path):
    for name in ("DATA", "MODELS"):
        monkeypatch.setenv(name, str(tmp_path))
    path, out = ROOT / "benchmarks" / f"{file}.yaml", str(tmp_path / "out")
    found = load_benchmark(path, {"output_folder": out}, tiny=True)
    assert found.jobs and all(job.state() == "to do" for job in found.jobs)


GOOD = {"recipes": ["ESC50"], "methods": ["linear"]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"recipes": ["ESC5O"]}, "no recipe ESC5O"),
        ({"recipes": [{"name": "x"}]}, "without recipe"),
        ({"recipes": ["ESC50", "ESC50"]}, "asks twice for ESC50/linear/fold1_seed0"),
        ({"recipes": [{"recipe": "ESC50", "name": "../x"}]}, "give the recipe ESC50"),
        ({"methods": ["adapter"]}, "ESC50: There is no method adapter"),
        ({"methods": []}, "needs methods: a list"),
        ({"methods": [{"method": "linear", "rank": 3}]}, "no use for --rank"),
        ({"overrides": {"rnak": 3}}, "ESC50: There is no option --rnak. Did you mean"),
        ({"overrides": {"lr": "fast"}}, "--lr=fast must be a number"),
        ({"overrides": {"seed": 3}}, "seed cannot be among the overrides"),
        ({"overides": {}}, "the key overides, which nothing reads: is it overrides?"),
        ({"seeds": 3}, "seeds must be a list of whole numbers"),
        ({"methods": [{"method": "lora", "seeds": []}]}, "seeds must be a list"),
        ({"parallel": 0}, "parallel must be a whole number of at least 1"),
    ],
)
def test_a_mistake_is_told_before_anything_runs(tmp_path, change, words):
    file = write(tmp_path / "grid.yaml", **{**GOOD, **change})
    with pytest.raises(UserError) as refused:
        load_benchmark(file)
    assert words in str(refused.value) and "grid.yaml" in str(refused.value)


def test_a_list_that_is_read_no_further_ends_quietly(tmp_path):
    many = {"recipes": [{"recipe": "ESC50", "data_folder": "x"}], "methods": ["linear"]}
    file = write(tmp_path / "grid.yaml", **many)
    command = [sys.executable, "-m", "petl_modules.benchmark", "list", str(file)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as process:
        process.stdout.close()  # as by head
        assert process.stderr.read() == ""
    assert process.returncode == 1


def test_no_yaml_and_no_code(tmp_path):
    file = tmp_path / "grid.yaml"
    with pytest.raises(UserError, match="There is no file"):
        load_benchmark(file)
    odd = ("[" * 9999, "seeds: " + "1" * 9999, "\0")
    for text in ("recipes: [", "!!python/object/apply:os.getcwd []", *odd):
        file.write_text(text)
        with pytest.raises(UserError, match="is no yaml"):
            load_benchmark(file)
    file.write_text("- a list")
    with pytest.raises(UserError, match="holds no keys"):
        load_benchmark(file)


def test_done_is_what_has_complete_results_of_these_settings(tmp_path, capsys):
    given = {"output_folder": str(tmp_path / "out"), "recipes": ["SpeechCommands"]}
    file = write(tmp_path / "grid.yaml", **{**GOOD, **given})
    (job,) = load_benchmark(file).jobs
    assert job.state() == "to do"
    job.folder.mkdir(parents=True)
    (job.folder / "hyperparams.yaml").write_text(job.config.text())
    (job.folder / "results.json").write_text(json.dumps(COMPLETE))
    assert job.state() == "to do"  # its adapter is gone
    for name in ("adapter.json", "adapter.safetensors"):
        (job.folder / name).write_text("something")
    assert job.state() == "done"
    assert benchmark.main(["run", str(file)]) == 0
    assert "1 of 1 jobs are done." in capsys.readouterr().out
    (job.folder / "results.json").write_text(json.dumps(COMPLETE)[:20])
    assert job.state() == "to do"
    write(file, **{**GOOD, **given}, overrides={"batch_size": 3})
    with pytest.raises(UserError, match="holds a run with batch_size=32, now it is 3"):
        benchmark.main(["run", str(file)])


def leaves(folder):
    """A program that leaves what a run leaves."""
    names = ["adapter.json", "adapter.safetensors", "hyperparams.yaml"]
    return (
        f"for name in {names}: open(f'{folder}/{{name}}', 'w').write('x')\n"
        f"open('{folder}/results.json', 'w').write('{json.dumps(COMPLETE)}')"
    )


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('error: No such thing.')\nprint('bye'); exit(2)", "No such thing."),
        ("raise ValueError('3 is no 4')", "ValueError: 3 is no 4"),
        ("import os; os.kill(os.getpid(), 9)", "It was killed by SIGKILL."),
        ("exit(3)", "It ended with status 3 and no word."),
        ("pass", "It ended with status 0 and no word."),
    ],
)
def test_a_failed_job_says_why(tmp_path, program, reason):
    assert run_job([sys.executable, "-c", program], tmp_path) == reason
    assert failure(tmp_path) == reason
    # the reason is of the last attempt
    good = leaves(tmp_path)
    assert run_job([sys.executable, "-c", good], tmp_path) is None
    assert failure(tmp_path) is None


def test_a_disk_that_takes_no_word_of_a_failure_ends_the_benchmark(tmp_path):
    with limited(0), pytest.raises(UserError, match=r"failure\.json cannot be written"):
        run_job(["false"], tmp_path)
    assert failure(tmp_path) is None
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_job_whose_adapter_is_gone_is_run_again(tmp_path):
    command = [sys.executable, "-c", leaves(tmp_path)]
    assert run_job(command, tmp_path) is None
    (tmp_path / "adapter.safetensors").unlink()
    assert run_job(command, tmp_path) is None
    assert (tmp_path / "adapter.safetensors").is_file()


def test_a_job_is_run_by_one_process_at_a_time(tmp_path):
    program = (
        "import pathlib, time; time.sleep(0.5)\n"
        f"open('{tmp_path}/runs', 'a').write('x')\n"
        f"{leaves(tmp_path)}"
    )
    (tmp_path / "results.json").write_text('{"metrics": ')  # cut off: does not count
    with ThreadPoolExecutor(2) as pool:
        command = [sys.executable, "-c", program]
        ended = [pool.submit(run_job, command, tmp_path) for _ in range(2)]
    assert [end.result() for end in ended] == [None, None]
    assert (tmp_path / "runs").read_text() == "x"


def start(*arguments):
    """Start the command line, as the leader of its processes."""
    return subprocess.Popen(
        [sys.executable, "-m", "petl_modules.benchmark", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )


def test_a_killed_benchmark_is_finished_by_the_same_command(
    checkpoints, class_folders, tmp_path, capsys
):
    file = write(
        tmp_path / "grid.yaml",
        recipes=[{"recipe": "AudioFolder", "data_folder": str(class_folders)}],
        methods=["linear", "bitfit", {"method": "lora", "lr": 1e30}],
        overrides={
            "source": str(checkpoints["ast"]),
            "batch_size": 8,
            "number_of_epochs": 8,
        },
        output_folder=str(tmp_path / "out"),
    )
    linear, bitfit, lora = (job.folder for job in load_benchmark(file).jobs)
    killed = start("run", file)
    deadline = time.monotonic() + 600
    while not epochs_logged(bitfit):
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert not (bitfit / "results.json").exists()
    before = (linear / "results.json").stat().st_mtime_ns

    again = start("run", file)
    out, _ = again.communicate(timeout=600)
    assert again.returncode == 1 and "1 of 3 jobs are done." in out
    assert (linear / "results.json").stat().st_mtime_ns == before
    assert json.loads((bitfit / "results.json").read_text())["epochs"] == 8
    # taken up, not begun anew: each epoch is logged once, or twice where it was cut
    assert len(epochs_logged(bitfit)) in (8, 9)
    assert "not finite" in failure(lora)

    assert benchmark.main(["report", str(file)]) == 1
    out = capsys.readouterr().out
    assert "lora/run_seed0: The loss is not finite" in out
    assert "| linear | ast | 1 |" in out and "| bitfit | ast | 1 |" in out
    left = {path.name for path in (tmp_path / "out" / "report").iterdir()}
    assert {"report.md", "AudioFolder.csv", "trade_off.png"} <= left
