import math

import pytest

from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_configuration
from fmnist_lit.config.criterion import DEFAULT, Criterion, watched_by_plateau


@pytest.mark.parametrize(
    ("mode", "value", "best", "expected"),
    [
        ("max", 0.5, None, True),
        ("max", 0.5, 0.4, True),
        ("max", 0.5, 0.5, False),
        ("max", 0.3, 0.4, False),
        ("min", 0.3, 0.4, True),
        ("min", 0.5, 0.4, False),
        ("max", -2.0, -3.0, True),
        ("max", math.nan, None, False),
        ("min", -math.inf, 0.4, False),
        ("max", None, None, False),
    ],
)
def test_only_what_is_better_and_finite_improves(mode, value, best, expected):
    assert Criterion("f1/val", mode).improves(value, best) is expected


@pytest.mark.parametrize(
    ("metric", "mode", "column", "words"),
    [
        ("accuracy/val", "max", "val_accuracy", "highest validation accuracy"),
        ("loss/train", "min", "train_loss", "lowest training loss"),
        (
            "accuracy/val_flip_average",
            "max",
            "val_accuracy_flip_average",
            "highest validation accuracy averaged over flips",
        ),
        ("f1/val", "max", "f1/val", "highest f1/val"),
        ("accuracy/macro", "max", "accuracy/macro", "highest accuracy/macro"),
    ],
)
def test_a_figure_has_a_column_and_words(metric, mode, column, words):
    criterion = Criterion(metric, mode)
    assert (criterion.column, criterion.superlative) == (column, words)


@pytest.mark.parametrize("node", [None, {}, 3, {"metric": "loss/val"}, {"metric": 1, "mode": "min"}, {"mode": "max"}])
def test_what_says_nothing_is_the_default(node):
    """As in the files of version 0.1."""
    assert Criterion.of(node) == DEFAULT == Criterion("accuracy/val", "max")


def test_a_sweeper_takes_a_run_without_a_figure_for_the_worst():
    assert DEFAULT.worst == 0.0
    assert Criterion("loss/val", "min").worst == math.inf
    assert Criterion("likelihood/val", "max").worst == -math.inf


STOP = "+callbacks.stop={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:accuracy/vall}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["select.metric=loss/val"], "select.mode=max: of select.metric=loss/val, the lowest is the best; must be min"),
        (["select.mode=min"], "select.mode=min: of select.metric=accuracy/val, the highest is the best; must be max"),
        (["select.metric=accuracy/test"], "select.metric=accuracy/test: must be a figure .*not of the test set"),
        (["select.metric=test_f1"], "select.metric=test_f1: must be .*not of the test set"),
        (["select.metric=accuracy/vall"], r"select.metric=accuracy/vall: .*only accuracy/train.*mean accuracy/val\?"),
        (["select.metric=f1/val"], "select.metric=f1/val: no callback of your own logs it, and there are only"),
        (["select.metric=accuracy/val_flip_average"], "needs flip_average=true"),
        (
            ["select.metric=loss/val", "select.mode=min", "data.val_size=0"],
            "select.metric=loss/val: needs data.val_size",
        ),
        (["select.metric=loss/val", "select.mode=min", "evaluate_each_epoch=[test]"], "val in evaluate_each_epoch"),
        (["select.metric=''"], "select.metric=: must be a figure"),
        (["select.mode=up"], "select.mode=up: must be max, min"),
        (["+select.patience=3"], "select.patience: no such key"),
        (
            ["scheduler=plateau", "scheduler.monitor=loss/test"],
            "scheduler.monitor=loss/test: must be .*not of the test",
        ),
        (["callbacks=early_stopping", "data.val_size=0"], "callbacks.early_stopping.monitor=accuracy/val: needs data"),
        ([STOP], r"callbacks.stop.monitor=accuracy/vall: .*did you mean accuracy/val\?"),
        ([STOP.replace("vall", "test")], "callbacks.stop.monitor=accuracy/test: the test set is read once"),
    ],
)
def test_a_figure_that_cannot_choose_is_refused_before_the_run(configure, overrides, message):
    with pytest.raises(ConfigError, match=message):
        check_configuration(configure("callbacks=default", *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["select.metric=loss/val", "select.mode=min"],
        ["select.metric=accuracy/train", "data.val_size=0"],
        ["select.metric=accuracy/val_flip_average", "flip_average=true"],
        ["data.val_size=0"],  # where nobody asks, nothing is chosen
    ],
)
def test_a_figure_that_there_will_be_is_accepted(configure, overrides):
    check_configuration(configure(*overrides))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ([], ("loss/val", "min")),  # the accuracy moves in steps of an image
        (["select.metric=loss/val", "select.mode=min"], ("loss/val", "min")),
        (["select.metric=f1/val"], ("f1/val", "max")),
        (["select.metric=f1/val", "scheduler.monitor=loss/train"], ("loss/train", "min")),
        (["scheduler.monitor=accuracy/val", "scheduler.mode=max"], ("accuracy/val", "max")),
    ],
)
def test_plateau_follows_what_selects(configure, overrides, expected):
    assert watched_by_plateau(configure("scheduler=plateau", *overrides)) == expected
