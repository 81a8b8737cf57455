"""What a folder of finished runs says: `python -m petl_modules.report FOLDER [METRIC]`.

Prints a markdown table of the methods: the metric's mean and standard deviation over
folds and seeds, the trained parameters, and the seconds of all runs together.
"""

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from petl_modules.console import refusing
from petl_modules.errors import UserError
from petl_modules.experiment import RESULTS

COLUMNS = ("recipe", "task", "backbone", "few_shot", "method")


def report(folder, metric="accuracy"):
    """The table of all runs below a folder, as markdown.

    Arguments
    ---------
    folder : str or Path
    metric : str
        One of those in results.json.

    Returns
    -------
    str

    Raises
    ------
    UserError
        For a folder without results, a damaged one, or an unknown metric.
    """
    groups = defaultdict(list)
    for path in sorted(Path(folder).glob(f"**/{RESULTS}")):
        result = read(path, metric)
        groups[tuple(str(result[column]) for column in COLUMNS)].append(result)
    if not groups:
        raise UserError(f"There is no {RESULTS} below {folder}.")
    columns = [i for i in range(len(COLUMNS)) if len({key[i] for key in groups}) > 1]
    columns = columns or [COLUMNS.index("method")]
    heads = [COLUMNS[i].replace("_", "-") for i in columns]
    heads += ["runs", f"valid {metric}", f"test {metric}", "trained", "seconds"]
    lines = [row(heads), row(["---"] * len(heads))]
    for key, results in sorted(groups.items()):
        lines.append(row([*(short(key[i]) for i in columns), *cells(results, metric)]))
    return "\n".join(lines)


def cells(results, metric):
    """What a row says of the runs of one kind."""
    sizes = results[0]["parameters"]
    trained = sizes["petl"] + sizes["norms"] + sizes["head"]
    values = {
        split: [result["metrics"][split][metric] for result in results]
        for split in ("valid", "test")
    }
    return [
        str(len(results)),
        *map(mean_and_std, values.values()),
        f"{trained:,}",
        f"{sum(result['seconds'] for result in results):.0f}",
    ]


def mean_and_std(values):
    """`mean ± standard deviation`, or the only value."""
    if len(values) == 1:
        return f"{values[0]:.3f}"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"


def read(path, metric):
    """One run's results."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise UserError(f"{path} is damaged: delete it and run that again.") from None
    if metric not in result["metrics"]["test"]:
        known = ", ".join(result["metrics"]["test"])
        raise UserError(f"There is no metric {metric} in {path}, but {known}.")
    return result


def short(text):
    """The last part of a path."""
    return Path(text).name


def row(values):
    """A row of a markdown table."""
    return f"| {' | '.join(values)} |"


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python -m petl_modules.report FOLDER [METRIC]")
    with refusing():
        print(report(*sys.argv[1:]))
