"""Run many methods on many data sets by one file.

`petl benchmark {list,run,report} FILE`: the file names recipes, methods, overrides and
seeds; folds come from the recipes. A job is one recipe's command line for one method,
fold and seed. `list` prints the jobs, `run` runs those that are not done, and `report`
writes tables and plots.
"""

import itertools
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from petl_modules.console import Parser
from petl_modules.errors import UserError
from petl_modules.grid.jobs import Job
from petl_modules.grid.published import Paper
from petl_modules.grid.report import write_report
from petl_modules.grid.runs import read_job
from petl_modules.grid.schedule import run_here, submit
from petl_modules.kinds import NO_YAML
from petl_modules.methods import method_entry, method_knobs
from petl_modules.train.config import refuse_misspelt
from petl_modules.train.labels import folder_name

# Of a file, with what they are if they are not given
KEYS = {
    "recipes": None,
    "methods": None,
    "seeds": [0],
    "overrides": {},
    "variants": [{}],
    "output_folder": None,
    "parallel": 1,
    "processes": 1,
    "slurm": {},
    "paper": None,
}
# Set by the file itself
RESERVED = ("method", "seed", "output_folder", "run_folder")
# What --tiny sets where a recipe has it, beside the first fold and seed: to see all run
TINY = {
    "number_of_epochs": 1,
    "number_of_steps": None,
    "evaluate_every": None,
    "patience": None,
    "warmup_steps": None,
    "head_start_epochs": 0,
    "batch_size": 8,
    "grad_accumulation_factor": 1,
    "precision": "fp32",
    "skip_broken": True,
}
PATHS = ("data_folder", "data", "clip_folder", "source")
IN_RUN_NAME = ("few_shot", "method", "task", "seeds")


@dataclass(frozen=True)
class Benchmark:
    """What a file asks for.

    Attributes
    ----------
    folder : Path
        Of all results.
    jobs : list of petl_modules.grid.jobs.Job
    parallel : int
        Jobs at a time on this machine.
    slurm : dict
        Options of sbatch, by their long names.
    paper : Paper or None
        Whose table it runs again.
    """

    folder: Path
    jobs: list
    parallel: int
    slurm: dict
    paper: Paper | None = None


def load_benchmark(
    path: str | Path, changes: dict | None = None, tiny: bool = False
) -> Benchmark:
    """Read and check a file.

    Arguments
    ---------
    path : str or Path
        In yaml. `recipes`: a list of `{recipe: FOLDER, name: NAME, key: value, ...}`;
        `methods`: a list of names, or of `{method: NAME, name: NAME, key: value,
        ...}`; and, if wanted, `seeds`, `overrides` (of all jobs), `variants` (a list of
        overrides, each for all jobs, which may have a name too), `output_folder`,
        `parallel`, `processes`, `slurm`. Names are for folders and the report. A recipe
        may say under `methods` what is its own for some of them, `{NAME: {key: value,
        ...}}`. Where the file runs a paper's table again, `paper` says what
        `petl_modules.grid.published.Paper` has.
    changes : dict or None
        Overrides of all jobs that count before all others, and output_folder.
    tiny : bool
        Whether every job is cut to one short epoch of its first fold and seed, to see
        that it runs.

    Returns
    -------
    Benchmark

    Raises
    ------
    UserError
        For anything that a recipe would refuse, before any of them runs.
    """
    given, changes = read(path), dict(changes or {})
    folder = given["output_folder"] or f"results/{Path(path).stem}"
    folder = changes.pop("output_folder", f"{folder}_tiny" if tiny else folder)
    folder = Path(expanded(folder)).resolve()
    given["changes"], given["tiny"] = changes, TINY if tiny else {}
    jobs = {}
    for recipe, variant, method in itertools.product(
        recipes_of(given, path), given["variants"], methods_of(given, path)
    ):
        try:
            made = make_jobs(folder, recipe, variant, method, given)
        except UserError as error:
            raise UserError(f"{path}, {recipe['name']}: {error}") from None
        for job in made:
            if job.folder in jobs:
                raise UserError(
                    f"{path} asks twice for {job.folder.relative_to(folder)}: give "
                    "recipes that stand there twice a name of their own."
                )
            jobs[job.folder] = job
    refuse_unused(changes, jobs.values(), path)
    return Benchmark(
        folder, [*jobs.values()], given["parallel"], given["slurm"], given["paper"]
    )


def main(argv: list[str] | None = None) -> int:
    """The command line; returns its exit status."""
    parser = Parser(__doc__)
    add = parser.add_argument
    actions = "List the jobs, run what is not done, or report what is done."
    add("action", choices=("list", "run", "report"), help=actions)
    add("file", metavar="FILE", help="A yaml of recipes, methods, overrides and seeds.")
    slurm = "Submit the jobs to SLURM as an array, instead of running them here."
    add("--slurm", action="store_true", help=slurm)
    tiny = "Cut every job to one short epoch of its first fold, to see that it runs."
    add("--tiny", action="store_true", help=tiny)
    change = "An override of all jobs, before all others; may be given again."
    add("--with", metavar="KEY=VALUE", action="append", default=[], help=change)
    options = parser.parse_args(argv)
    changes = dict(map(change_of, vars(options)["with"]))
    benchmark = load_benchmark(options.file, changes, options.tiny)
    if options.action == "list":
        return show(benchmark)
    if options.action == "report":
        runs = [read_job(job) for job in benchmark.jobs]
        output = benchmark.folder / "report"
        return write_report(runs, benchmark.folder, output, paper=benchmark.paper)
    states = [job.state() for job in benchmark.jobs]
    waiting = [
        job
        for job, state in zip(benchmark.jobs, states, strict=True)
        if state != "done"
    ]
    print(f"{states.count('done')} of {len(states)} jobs are done.")
    if not waiting:
        return 0
    if options.slurm:
        return submit(waiting, benchmark.folder, benchmark.slurm)
    return run_here(waiting, benchmark.folder, benchmark.parallel)


# Helpers


def show(benchmark: Benchmark) -> int:
    """Print every job's state and command line."""
    for job in benchmark.jobs:
        print(f"{job.state():6}{job.shown()}")
    return 0


def make_jobs(
    folder: Path, recipe: dict, variant: dict, method: dict, given: dict
) -> list[Job]:
    """The jobs of all seeds and folds of one recipe and method."""
    entries = [dict(variant), dict(method)]
    names = [plain_name(entry.pop("name", None)) for entry in entries]
    variant, method = entries
    settings = {**given["overrides"], **recipe["settings"], **variant, **method}
    settings |= recipe["methods"].get(names[1] or method["method"]) or {}
    seeds = seeds_of(settings.pop("seeds", given["seeds"]))
    settings |= fitting(given["changes"], recipe["recipe"], method["method"])
    for key in RESERVED:
        if key in settings and (key != "method" or key not in method):
            raise UserError(f"{key} cannot be among the overrides.")
    for key in PATHS:
        if isinstance(settings.get(key), str):
            settings[key] = full_path(settings[key])
    home = folder / recipe["name"] / home_of(entries, names)
    caches = {"cache_folder": str(folder / "cache")}  # one for all jobs
    settings = {**caches, **settings, "output_folder": str(home)}
    task = recipe["name"] if recipe["named"] else None
    called = [names[1] or method["method"], names[0]] if any(names) else []
    name = " ".join(filter(None, called)) or None

    def job(**more: Any) -> Job:
        told = tuple({**settings, **more}.items())
        return Job(recipe["recipe"], told, given["processes"], task, name)

    if given["tiny"]:
        known = knobs_of(recipe["recipe"], method["method"])
        less = {k: v for k, v in given["tiny"].items() if k in known}
        settings |= {k: v for k, v in less.items() if k not in given["changes"]}
        seeds = seeds[:1]
    config = job(seed=seeds[0]).config
    folds = config["folds"]
    if not folds or config["fold"] is not None:
        return [job(seed=seed) for seed in seeds]
    folds = folds[:1] if given["tiny"] else folds
    return [job(seed=seed, fold=fold) for seed in seeds for fold in folds]


def seeds_of(said: Any) -> list[int]:
    """The seeds that a file gives; a UserError if they are none."""
    if isinstance(said, list) and said and all(type(seed) is int for seed in said):
        return said
    raise UserError("seeds must be a list of whole numbers.")


def fitting(changes: dict, recipe: str, method: str) -> dict[str, Any]:
    """Those changes that a recipe and a method have a use for."""
    if not changes:
        return {}
    others = set(method_knobs()) - set(method_entry(method).knobs)
    known = knobs_of(recipe, method) - others
    return {key: value for key, value in changes.items() if key in known}


@cache
def knobs_of(recipe: str, method: str) -> frozenset[str]:
    """Every knob of a recipe."""
    return frozenset(Job(recipe, (("method", method),)).config.knobs)


def refuse_unused(changes: dict, jobs: Collection[Job], path: str | Path) -> None:
    """Raise a UserError for a change that no job has a use for."""
    used = {key for job in jobs for key, _ in job.settings}
    for key in changes:
        if key not in used:
            raise UserError(f"No recipe and no method of {path} has the knob {key}.")


def home_of(entries: Sequence[dict], names: Sequence[str | None]) -> str:
    """The folder of a variant's and a method's runs: their names, or what they set."""
    own = [
        {key: value for key, value in entry.items() if key not in IN_RUN_NAME}
        for entry in entries
    ]
    if not any(names):
        return folder_name({**own[0], **own[1]})
    parts = [name or folder_name(o) for name, o in zip(names, own, strict=True)]
    return ",".join(filter(None, parts))


def plain_name(name: Any) -> str | None:
    """A name that a file gives, which must do for a folder; None stays."""
    if name is None:
        return None
    if not str(name).strip() or "/" in str(name) or str(name).startswith("."):
        raise UserError(f"The name {name!r} is none for a folder: choose another one.")
    return str(name).strip()


def recipes_of(given: dict, path: str | Path) -> list[dict]:
    """`{recipe, name, named, settings}` of each."""
    found = []
    for entry in given["recipes"]:
        entry = {"recipe": entry} if isinstance(entry, str) else dict(entry)
        if not isinstance(entry.get("recipe"), str):
            raise UserError(f"{path} has an entry of recipes without recipe: {entry}.")
        recipe = entry.pop("recipe")
        named, own = "name" in entry, entry.pop("methods", {})
        known = [m.get("name", m["method"]) for m in methods_of(given, path)]
        if not isinstance(own, dict):
            raise UserError(f"{path}: methods of {recipe} must be a mapping of names.")
        for method in own:
            refuse_misspelt(method, known, path)
        name = str(entry.pop("name", recipe))
        if ".." in Path(name).parts or Path(name).is_absolute():
            raise UserError(f"{path}: give the recipe {recipe} a name.")
        found.append(
            {
                "recipe": recipe,
                "name": name,
                "named": named,
                "settings": entry,
                "methods": own,
            }
        )
    return found


def methods_of(given: dict, path: str | Path) -> list[dict]:
    """The overrides of each method, its name among them."""
    found = []
    for entry in given["methods"]:
        entry = {"method": entry} if isinstance(entry, str) else dict(entry)
        if "method" not in entry:
            raise UserError(f"{path} has an entry of methods without method: {entry}.")
        found.append(entry)
    return found


def read(path: str | Path) -> dict[str, Any]:
    """The file's keys, all of them, each of its type."""
    try:
        given = YAML(typ="safe", pure=True).load(Path(path))
    except OSError:
        raise UserError(f"There is no file {path}.") from None
    except NO_YAML as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise UserError(f"{path} is no yaml: {said[0]}.") from None
    if not isinstance(given, dict):
        raise UserError(f"{path} holds no keys.")
    for key in given:
        refuse_misspelt(key, KEYS, path)
    given = {**KEYS, **given}
    for key, kind, what in (
        ("recipes", str | dict, "names or mappings"),
        ("methods", str | dict, "names or mappings"),
        ("variants", dict, "mappings"),
    ):
        value = given[key]
        fine = isinstance(value, list) and value
        if not fine or not all(isinstance(v, kind) for v in value):
            raise UserError(f"{path} needs {key}: a list of {what}.")
    for key in ("parallel", "processes"):
        if type(given[key]) is not int or given[key] < 1:
            raise UserError(f"{path}: {key} must be a whole number of at least 1.")
    for key in ("overrides", "slurm"):
        if not isinstance(given[key], dict):
            raise UserError(f"{path}: {key} must be a mapping.")
    given["paper"] = paper_of(given["paper"], path)
    return given


def paper_of(said: Any, path: str | Path) -> Paper | None:
    """The paper whose table a file runs again, or None."""
    if said is None:
        return None
    if not isinstance(said, dict):
        raise UserError(f"{path}: paper must be a mapping.")
    for key in said:
        refuse_misspelt(key, [field.name for field in fields(Paper)], path)
    lists = {key: tuple(v) for key, v in said.items() if isinstance(v, list)}
    try:
        return Paper(**{**said, **lists})
    except TypeError:
        raise UserError(
            f"{path}: paper must say source, table, backbone and protocol."
        ) from None


def change_of(text: str) -> tuple[str, Any]:
    """The key and value of KEY=VALUE."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--with {text} is no KEY=VALUE.")
    try:
        return key, YAML(typ="safe", pure=True).load(value)
    except NO_YAML:
        return key, value


def full_path(text: str) -> str:
    """A path with its variables filled in, absolute if it is a folder here; hub ids
    stay as they are."""
    path = Path(expanded(text))
    return str(path.resolve()) if path.is_dir() else expanded(text)


def expanded(text: str | Path) -> str:
    """A path with ~ and $VARIABLES filled in."""
    return os.path.expanduser(os.path.expandvars(str(text)))
