"""How metrics are read and shown."""

from collections.abc import Collection, Mapping
from typing import Any

# all others are shown in percent
NOT_FRACTIONS = ("loss", "mcd", "f0_rmse", "duration_error", "min_dcf")
# ends of names
LOWER_IS_BETTER = ("error_rate", "cer", "eer", *NOT_FRACTIONS)


def main_metric(settings: Mapping[str, Any], known: Collection[str]) -> str:
    """What a task is judged by, of the metrics that are known: what chose the epoch."""
    chose = settings.get("metric")  # none where the task has one alone
    return chose if chose in known else next(key for key in known if key != "loss")


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a metric is better."""
    return metric.endswith(LOWER_IS_BETTER)


def scale(metric: str) -> int:
    """What a metric is multiplied by to be shown."""
    return 1 if metric in NOT_FRACTIONS else 100


def unit(metric: str) -> str:
    """A metric's name with its unit."""
    return metric if metric in NOT_FRACTIONS else f"{metric}, %"
