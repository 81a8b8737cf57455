"""Pictures of any classes: bounded, with names as they are, after the results."""

import numpy as np
import pytest
from conftest import RATE, run_here, tone
from matplotlib import pyplot

from petl_modules.tasks.pictures import confusion_matrix


@pytest.mark.parametrize("count", [2, 61, 250, 1000])
def test_a_confusion_matrix_is_of_bounded_size(tmp_path, count):
    classes = np.arange(count)
    figure = confusion_matrix(
        classes, classes, classes, [f"class {i}" for i in classes]
    )
    figure.savefig(tmp_path / "a.png", dpi=120)
    width, height = figure.get_size_inches() * 120
    assert width * height < 3400**2
    assert len(figure.axes[0].texts) == (count**2 if count <= 60 else 0)
    names = [text.get_text() for text in figure.axes[0].get_xticklabels()]
    assert len(names) == (count if count <= 250 else 0)
    pyplot.close(figure)


def test_dollars_are_no_mathematics(tmp_path):
    names = ["$100_$200", "b", "$$", r"\$x_{"]
    figure = confusion_matrix(range(4), range(4), range(4), names)
    figure.savefig(tmp_path / "a.png")
    pyplot.close(figure)


def test_classes_with_odd_names_are_trained(tmp_path):
    for label, pitch in (("$100_$200", 300), ("é | [x]", 2000)):
        for i in range(6):
            tone(tmp_path / "data" / label / f"{i}.wav", pitch, 0.3, RATE, seed=i)
    run_here(
        "AudioFolder", f"--data_folder={tmp_path / 'data'}",
        f"--output_folder={tmp_path / 'out'}", "--method=linear", "--device=cpu",
        "--number_of_epochs=1", "--noprogressbar=True",
    )  # fmt: skip
    folder = tmp_path / "out" / "linear" / "run_seed0"
    picture, results = folder / "confusion_matrix.png", folder / "results.json"
    assert picture.stat().st_mtime_ns > results.stat().st_mtime_ns
