"""Search for the learning rate and size of a method that are best on a task.

`petl search RECIPE --method=NAME [--key=value ...]`: Optuna proposes them, each trial
is a run of the recipe, and only the validation set is looked at. Any option of the
recipe may be given, and holds for all trials. The same command goes on with a search
that was interrupted.
"""

import itertools
import json
import logging
import sys
from pathlib import Path
from typing import Any, NoReturn

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from petl_modules.console import Parser, above_zero
from petl_modules.errors import UserError
from petl_modules.files import lock, make_folder, whole
from petl_modules.grid.jobs import LOCK, Job, run_job
from petl_modules.methods import method_entry
from petl_modules.tasks.metrics import lower_is_better, main_metric
from petl_modules.train.config import Config, load_config, split
from petl_modules.train.labels import apart, as_text, chosen, folder_name
from petl_modules.train.recipes import HPARAMS, prepare_of
from petl_modules.train.results import HARMLESS

logger = logging.getLogger(__name__)

RANGE = 10  # times smaller and larger than the method's own learning rate
WIDTHS = {"rank", "reduction_rate"}
OVER = (TrialState.COMPLETE, TrialState.FAIL)


def search(
    recipe: str, settings: dict, trials: int, folder: str | Path | None = None
) -> dict:
    """Search, or go on with it.

    Arguments
    ---------
    recipe : str
        A folder in `recipes/`, or a path.
    settings : dict
        The command line's: `{key: value}`. Of a recipe with folds the first is taken,
        unless `fold` is among them.
    trials : int
        In all, those that failed and those of earlier calls included.
    folder : Path or None
        Where runs and trials are kept; None for results/search/RECIPE/METHOD, and
        below it a folder for settings that are not the recipe's own.

    Returns
    -------
    dict
        The best trial's settings.

    Raises
    ------
    UserError
        If the method's own settings fail, or the folder holds another search.
    """
    if settings.get("test"):
        raise UserError("A search looks at the validation set alone: leave out --test.")
    settings = {**settings, "test": False}
    job = Job(recipe, tuple(settings.items()))
    if job.config["folds"] and job.config["fold"] is None:
        settings["fold"] = job.config["folds"][0]
        job = Job(recipe, tuple(settings.items()))
    config = job.config
    name = f"{config['recipe']}/{config['method']}"
    if folder is None:
        plain = load_config(job.home / HPARAMS, chosen(config), prepare_of(job.home))
        folder = Path("results/search") / name
        folder = folder / apart(config.replace(test=plain["test"]), plain)
    folder = Path(folder).resolve()
    make_folder(folder)

    def busy() -> NoReturn:
        raise UserError(f"Another search runs in {folder}.")

    with lock(folder / LOCK, busy):
        study = take_up(folder, config)
        space = space_of(config)
        while sum(trial.state in OVER for trial in study.trials) < trials:
            run_trial(study, space, recipe, settings, folder)
    try:
        return rounded(study.best_params)
    except ValueError:
        raise UserError(f"All {trials} trials failed: see {folder}.") from None


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(__doc__)
    add = parser.add_argument
    recipe = "A folder in recipes/, or the path of a recipe."
    add("recipe", metavar="RECIPE", help=recipe)
    trials = "How many trials there are in all, earlier ones included (%(default)s)."
    add("--trials", type=above_zero, default=20, help=trials)
    folder = "Where runs and trials are kept (results/search/RECIPE/METHOD)."
    add("--output_folder", help=folder)
    options, others = parser.parse_known_args(argv)
    given = split(others)
    settings = {key: "True" if text is None else text for key, text in given.items()}
    best = search(options.recipe, settings, options.trials, options.output_folder)
    print("Best:", *(f"--{key}={as_text(value)}" for key, value in best.items()))


# Helpers


def take_up(folder: Path, config: Config) -> optuna.Study:
    """The study of a folder, as it was before a trial that was interrupted.

    Trials that were under way are proposed once more: their runs go on.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = folder / "trials.log"
    mend(journal)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(
        storage=storage,
        study_name="search",
        direction="maximize",
        load_if_exists=True,
    )
    facts = {
        key: repr(value)
        for key, value in config.settings().items()
        if key not in HARMLESS
    }
    theirs = study.user_attrs.get("settings", facts)
    for key in facts:
        if theirs.get(key) != facts[key]:
            raise UserError(
                f"{folder} holds a search with {key}={theirs.get(key)}, now it is "
                f"{facts[key]}: choose another --output_folder, or delete that one."
            )
    study.set_user_attr("settings", facts)
    # another seed after each interruption, or the same draws would come again
    seed = config["seed"] + len(study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=seed)
    waiting = [params_of(t) for t in study.get_trials(states=[TrialState.WAITING])]
    for trial in study.get_trials(states=[TrialState.RUNNING]):
        # before it is given up, or a process that is killed between the two loses it
        if (params := params_of(trial)) and params not in waiting:
            study.enqueue_trial(params)
        study.tell(trial.number, state=TrialState.PRUNED)
    if not study.get_trials(states=[TrialState.COMPLETE, TrialState.WAITING]):
        study.enqueue_trial({"lr": config["lr"]})
    return study


def params_of(trial: optuna.trial.FrozenTrial) -> dict[str, Any]:
    """What a trial was told to try, and what it has drawn so far."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def mend(journal: Path) -> None:
    """Cut a journal off before the first line that is not whole: what was written there
    when a process was killed, or the disk was full, comes again."""
    if not journal.exists():
        return
    lines = journal.read_bytes().splitlines(keepends=True)
    whole_lines = list(itertools.takewhile(is_whole, lines))
    if len(whole_lines) < len(lines):
        logger.warning("%s is damaged: the search goes on before that.", journal)
        with whole(journal) as partial:
            partial.write_bytes(b"".join(whole_lines))


def is_whole(line: bytes) -> bool:
    """Whether a line of a journal is a record."""
    try:
        return line.endswith(b"\n") and isinstance(json.loads(line), dict)
    except ValueError:
        return False


def space_of(config: Config) -> dict[str, optuna.distributions.BaseDistribution]:
    """What is searched: the learning rate about the method's own, and its sizes."""
    lr = config["lr"]
    sizes = method_entry(config["method"]).search
    # both say how wide a module is: what is given leaves no room for the other
    fixed = config.given | (WIDTHS if WIDTHS & config.given else set())
    return {
        "lr": optuna.distributions.FloatDistribution(lr / RANGE, lr * RANGE, log=True),
        **{
            key: optuna.distributions.CategoricalDistribution(choices)
            for key, choices in sizes.items()
            if key not in fixed
        },
    }


def run_trial(
    study: optuna.Study,
    space: dict[str, optuna.distributions.BaseDistribution],
    recipe: str,
    settings: dict[str, Any],
    folder: Path,
) -> None:
    """One trial, and a line about it."""
    trial = study.ask(space)
    params = rounded(trial.params)
    label = folder_name(params)
    given = {**settings, **params, "output_folder": str(folder / label)}
    job = Job(recipe, tuple(given.items()))
    reason = run_job(job.command(), job.folder)
    if reason is not None:
        study.tell(trial, state=TrialState.FAIL)
        print(f"trial {trial.number}: {label}: failed: {reason}", file=sys.stderr)
        if not study.get_trials(states=[TrialState.COMPLETE]):
            raise UserError(f"The first trial failed: {reason}")
        return
    metrics = job.results()["metrics"]["valid"]
    metric = main_metric(job.config.settings(), metrics)
    sign = -1 if lower_is_better(metric) else 1
    study.tell(trial, sign * metrics[metric])
    print(f"trial {trial.number}: {label}: valid {metric} {metrics[metric]:.4f}")


def rounded(params: dict[str, Any]) -> dict[str, Any]:
    """A trial's settings; three digits of a learning rate are enough."""
    return {**params, "lr": float(f"{params['lr']:.3g}")}
