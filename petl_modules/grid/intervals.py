"""How sure a figure is: intervals of 95 % over clips, or over runs."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm, t

LEVEL = 0.95
DRAWS = 2000
FEWEST = 3  # values that an interval over runs needs

Interval = tuple[float, float]


def wilson(right: int, count: int) -> Interval:
    """Wilson's score interval of a share (Wilson 1927).

    Arguments
    ---------
    right, count : int
        So many of so many.

    Example
    -------
    >>> low, high = wilson(90, 100)
    >>> round(low, 3), round(high, 3)
    (0.826, 0.945)
    """
    z, share = norm.ppf((1 + LEVEL) / 2), right / count
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    below = 1 + z**2 / count
    return float((middle - half) / below), float((middle + half) / below)


def bootstrap(values: Sequence[float]) -> Interval:
    """Percentiles of the mean of values that are drawn again (Efron 1979), the same
    at each call.

    Arguments
    ---------
    values : sequence of float
        One a clip.
    """
    values, rng = np.asarray(values, float), np.random.default_rng(0)
    drawn = (rng.integers(0, len(values), len(values)) for _ in range(DRAWS))
    means = [values[places].mean() for places in drawn]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def over_runs(values: Sequence[float]) -> Interval | None:
    """Student's interval of a mean; None of fewer than three values.

    Arguments
    ---------
    values : sequence of float
        One a run.
    """
    if len(values) < FEWEST:
        return None
    mean, error = statistics.mean(values), statistics.stdev(values)
    half = t.ppf((1 + LEVEL) / 2, len(values) - 1) * error / math.sqrt(len(values))
    return float(mean - half), float(mean + half)
