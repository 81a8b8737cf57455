"""What a person sees of training."""

import io

from petl_modules.console import progress_bar
from petl_modules.train.progress import Progress


def test_an_epoch_is_one_line_with_the_best_so_far_and_the_end(caplog):
    caplog.set_level("INFO")
    progress = Progress("accuracy")
    progress.begin(20, opening="Training: 4 batches an epoch.")
    for epoch, accuracy in enumerate((0.5, 0.75, 0.625), 1):
        valid = {"loss": 1.0 / epoch, "accuracy": accuracy}
        progress.epoch(epoch, {"loss": 2.0}, valid, error=1 - accuracy)
    first, *lines = caplog.messages
    assert first.startswith("Training: ")
    assert lines[0].startswith(
        "epoch  1 of 20: loss 2.0000, valid loss 1.0000, valid accuracy 0.5"
    )
    assert ["(best)" in line for line in lines] == [True, True, False]
    assert "(best 0.7500 of epoch 2)" in lines[2] and lines[2].endswith("left")


def test_a_run_that_goes_on_knows_its_best(caplog):
    caplog.set_level("INFO")
    progress = Progress("word_error_rate")
    progress.begin(4, best=(0.2, 2, 0.2))
    progress.epoch(4, {"loss": 1.0}, {"loss": 1.0, "word_error_rate": 0.3}, 0.3)
    assert "(best 0.2000 of epoch 2)" in caplog.messages[-1]
    assert "left" not in caplog.messages[-1]


def test_bars_are_for_terminals(capsys):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    for stream in (terminal, None):
        kept = {} if stream is None else {"file": stream}
        for _ in progress_bar(range(3), desc="clips", **kept):
            pass
    assert "clips" in terminal.getvalue() and capsys.readouterr().err == ""
    hidden = io.StringIO()
    hidden.isatty = lambda: True
    assert list(progress_bar(range(3), shown=False, file=hidden)) == [0, 1, 2]
    assert hidden.getvalue() == ""
