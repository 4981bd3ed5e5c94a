import csv
import re
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import SMALL
from interruptions import points as shown_points
from lightning.pytorch.loggers import CSVLogger as LightningCSVLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import plugin_data_pb2

from fmnist_lit.loggers import ConsoleLogger, CSVLogger, TensorBoardLogger
from fmnist_lit.train import train

HEADER = "epoch,train_accuracy,train_loss,val_accuracy,val_loss,lr,seconds"


def figures(epoch: int, **more: float) -> dict[str, float]:
    common = {"accuracy/train": 0.5, "loss/train": 1.5, "accuracy/val": 0.25, "loss/val": 2.0, "lr": 0.1}
    return {**common, "seconds": epoch + 0.12345, **more}


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_metrics_csv_has_a_row_an_epoch(configure, tmp_path):
    train(configure("trainer.max_epochs=3"))
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert lines[0] == HEADER
    assert [row["epoch"] for row in read(tmp_path / "run" / "metrics.csv")] == ["1", "2", "3"]


def test_metrics_csv_holds_what_it_was_given(tmp_path):
    CSVLogger(tmp_path).log_metrics(figures(1), step=1)
    assert (tmp_path / "metrics.csv").read_text() == f"{HEADER}\n1,0.5,1.5,0.25,2.0,0.1,1.123\n"


def test_metrics_csv_names_the_test_set_where_it_is_shown_each_epoch(configure, tmp_path):
    train(configure("experiment=tutorial", "data.val_size=0"))
    row = read(tmp_path / "run" / "metrics.csv")[0]
    assert 0 <= float(row["test_accuracy"]) <= 1
    assert float(row["test_loss"]) > 0
    assert row.get("val_accuracy", "") == ""


def test_row_replaces_those_of_its_own_and_later_epochs(tmp_path):
    logger = CSVLogger(tmp_path)
    for epoch in (1, 2, 3):
        logger.log_metrics(figures(epoch), step=epoch)
    CSVLogger(tmp_path).log_metrics(figures(2, **{"loss/train": 9.0}), step=2)
    assert [(row["epoch"], row["train_loss"]) for row in read(tmp_path / "metrics.csv")] == [("1", "1.5"), ("2", "9.0")]


def test_result_of_the_test_makes_no_row(tmp_path):
    CSVLogger(tmp_path).log_metrics({"accuracy/test": 0.5, "loss/test": 1.0}, step=3)
    assert not (tmp_path / "metrics.csv").exists()


def test_console_has_a_line_an_epoch_in_percent(caplog):
    caplog.set_level("INFO")
    ConsoleLogger(max_epochs=10).log_metrics(figures(3), step=3)
    assert re.match(
        r"epoch +3/10 \| train 50\.00 % loss 1\.5000 \| val 25\.00 % loss 2\.0000 \| lr 0\.1", caplog.messages[0]
    )


@pytest.fixture
def events(configure, tmp_path):
    """What TensorBoard would read after a run."""

    def run(*overrides: str) -> EventAccumulator:
        train(configure("logger=default", "data.batch_size=32", *overrides))
        accumulator = EventAccumulator(str(tmp_path / "run"))
        accumulator.Reload()
        return accumulator

    return run


def points(accumulator: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_tensorboard_has_the_tags_of_the_contract_with_epochs_as_steps(events):
    accumulator = events("trainer.max_epochs=3")
    for tag in ("accuracy/train", "accuracy/val", "loss/train", "loss/val", "lr"):
        assert [step for step, _ in points(accumulator, tag)] == [1, 2, 3]
    for tag in ("accuracy/test", "loss/test"):
        assert len(points(accumulator, tag)) == 1


def test_tensorboard_and_metrics_csv_agree(events, tmp_path):
    accumulator = events()
    rows = read(tmp_path / "run" / "metrics.csv")
    for tag, column in (("accuracy/val", "val_accuracy"), ("loss/train", "train_loss"), ("lr", "lr")):
        assert [value for _, value in points(accumulator, tag)] == pytest.approx([float(row[column]) for row in rows])


def test_tensorboard_shows_the_test_set_each_epoch_in_the_tutorial(events):
    accumulator = events("experiment=tutorial", "data.val_size=0")
    assert [step for step, _ in points(accumulator, "accuracy/test")] == [1, 2]
    assert "accuracy/val" not in accumulator.Tags()["scalars"]


def test_tensorboard_has_the_hyper_parameters_beside_the_accuracies(events):
    accumulator = events("optimizer.lr=0.25", "tags=[a,b]", "note=why")
    plugin = accumulator.summary_metadata
    content = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
        for tag, metadata in plugin.items()
        if metadata.plugin_data.plugin_name == "hparams"
    }
    experiment = content["_hparams_/experiment"].experiment
    assert {metric.name.tag for metric in experiment.metric_infos} == {"accuracy/val", "accuracy/test"}
    started = content["_hparams_/session_start_info"].session_start_info.hparams
    assert started["optimizer.lr"].number_value == 0.25
    assert started["data.batch_size"].number_value == 32
    assert (started["tags"].string_value, started["note"].string_value) == ("a, b", "why")
    assert "hp_metric" not in accumulator.Tags()["scalars"]


def test_tensorboard_shows_first_what_varies_in_a_sweep(launch_here, tmp_path):
    run = (*SMALL, "~callbacks.progress_bar", "logger=tensorboard", "trainer.max_epochs=1", "hydra.sweep.dir=sweep")
    varied = ("data.val_size=32,64", "optimizer=adam,sgd", "callbacks=[default,ema],[default]")
    assert launch_here("-m", *run, *varied, "seed=1", "tags=[a]") == 0
    folder = "callbacks=_default,ema_,data.val_size=32,optimizer=sgd"
    accumulator = EventAccumulator(str(tmp_path / "sweep" / folder))
    accumulator.Reload()
    content = {
        tag: plugin_data_pb2.HParamsPluginData.FromString(metadata.plugin_data.content)
        for tag, metadata in accumulator.summary_metadata.items()
        if metadata.plugin_data.plugin_name == "hparams"
    }
    infos = content["_hparams_/experiment"].experiment.hparam_infos
    assert {info.name for info in infos if info.differs} == {"data.val_size", "optimizer", "callbacks"}
    started = content["_hparams_/session_start_info"].session_start_info.hparams
    assert started["callbacks"].string_value == "[default,ema]"
    started = content["_hparams_/session_start_info"].session_start_info.hparams
    assert (started["data.val_size"].number_value, started["optimizer"].string_value) == (32, "sgd")


def test_rates_that_vary_have_a_column_of_their_logarithm(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    row = {"seed": 1, "optimizer.lr": 0.01, "optimizer.weight_decay": 0.0, "scheduler.num_steps": 10}
    logger.log_hyperparams(row, {}, varied=["optimizer.lr", "optimizer.weight_decay", "scheduler.num_steps"])
    content = EventAccumulator(str(tmp_path)).Reload().PluginTagToContent("hparams")
    infos = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/experiment"]).experiment.hparam_infos
    assert {info.name for info in infos if info.differs} == {"log10 optimizer.lr", *row} - {"seed"}
    started = plugin_data_pb2.HParamsPluginData.FromString(content["_hparams_/session_start_info"])
    values = {name: value.number_value for name, value in started.session_start_info.hparams.items()}
    assert values == {"log10 optimizer.lr": pytest.approx(-2), **row}


def test_tensorboard_has_no_point_double_after_resuming(events, tmp_path):
    events("trainer.max_epochs=3", "trainer.max_steps=11")
    accumulator = events("trainer.max_epochs=3", f"ckpt_path='{tmp_path / 'run' / 'checkpoints' / 'last.ckpt'}'")
    assert [step for step, _ in points(accumulator, "loss/train")] == [1, 2, 3]


def test_tensorboard_has_no_point_double_where_only_the_test_is_left_to_resume(events, tmp_path, monkeypatch):
    def kill(*arguments: object) -> None:
        raise KeyboardInterrupt

    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as killed:
        killed.setattr("fmnist_lit.train.log_hyperparameters", kill)
        with pytest.raises(KeyboardInterrupt):
            events("trainer.max_epochs=2")
    accumulator = events("trainer.max_epochs=2", f"ckpt_path='{checkpoint}'")
    assert [step for step, _ in points(accumulator, "loss/train")] == [1, 2]
    for tag in ("accuracy/test", "loss/test"):
        assert [step for step, _ in points(accumulator, tag)] == [2]


@pytest.mark.parametrize("logger", ["csv", "tensorboard", "console", "default"])
def test_each_logger_alone_trains(configure, tmp_path, logger):
    train(configure(f"logger={logger}"))
    files = {file.name.split(".")[0] for file in (tmp_path / "run").iterdir() if file.is_file()}
    files.discard("val_correct")  # is the run's own
    expected = {"csv": {"metrics"}, "tensorboard": {"events"}, "console": set(), "default": {"metrics", "events"}}
    assert files == expected[logger]


@pytest.mark.parametrize("behind", [0.0, 1.0, 3600.0])
def test_events_of_a_resumed_run_follow_the_earlier_ones_whatever_the_clock_says(tmp_path, monkeypatch, behind):
    """As on a machine that is behind; TensorBoard reads the files by name, which begins with the time."""
    from tensorboard.summary.writer import event_file_writer

    def attempt(*epochs: int) -> None:
        logger = TensorBoardLogger(tmp_path)
        assert logger.experiment  # as Lightning may before it loads a checkpoint
        logger.go_on_from(epoch=epochs[0] - 1, step=0, batch=0)
        for epoch in epochs:
            logger.log_metrics({"accuracy/train": epoch / 10}, epoch)
        logger.finalize("failed")

    attempt(1, 2)
    now = time.time() - behind
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=lambda: now))
    attempt(2, 3)
    monkeypatch.undo()
    attempt(4)
    shown = shown_points(tmp_path)["accuracy/train"]
    assert [step for step, _ in shown] == [1, 2, 3, 4]
    assert event_file_writer.time is time


def test_folder_whose_name_is_no_text_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"udcff'.*UTF-8 only; ~logger.tensorboard does without it"):
        TensorBoardLogger(tmp_path / "a\udcff")


def test_what_a_callback_logs_by_step_leaves_the_epochs_of_a_resumed_run_alone(configure, tmp_path):
    monitor = "+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor"
    train(configure(monitor, "logger=default"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    train(configure(monitor, "logger=default", "trainer.max_epochs=3", f"ckpt_path='{last}'"))
    assert [step for step, _ in shown_points(tmp_path / "run")["accuracy/val"]] == [1, 2, 3]


def test_lightnings_own_csv_logger_has_each_epoch_at_once_and_the_test(configure, tmp_path, monkeypatch):
    seen = []
    save = LightningCSVLogger.save
    monkeypatch.setattr(LightningCSVLogger, "save", lambda self: (save(self), seen.append(rows())))
    target = "_target_:lightning.pytorch.loggers.CSVLogger"

    def rows() -> list[dict[str, str]]:
        file = tmp_path / "own" / "metrics.csv"
        return read(file) if file.exists() else []

    results = train(configure(f"+logger.own={{{target},save_dir:'{tmp_path}',name:'',version:own}}"))
    assert sorted({len(at_once) for at_once in seen} - {0, 3}) == [1, 2]
    *epochs, test = rows()
    assert [row["step"] for row in epochs] == ["1", "2"]
    assert all(row["accuracy/val"] and not row["accuracy/test"] for row in epochs)
    assert (test["step"], float(test["accuracy/test"])) == ("2", results["test_accuracy"])
