import os
import time
from pathlib import Path

import pytest
from filelock import FileLock
from interruptions import TINY, results

ONE_EPOCH = (*TINY, "trainer.max_epochs=1", "logger=csv", "~callbacks.progress_bar")

# ckpt_path=latest


def test_latest_is_the_run_last_written_to_and_it_is_said_which(launch_here, tmp_path, capsys):
    assert launch_here(*ONE_EPOCH, "note=first, [of] two") == 0
    (run,) = (tmp_path / "outputs" / "runs").iterdir()
    assert "note" not in run.name
    older = run.with_name("older")
    (older / "checkpoints").mkdir(parents=True)
    for file in (older / "checkpoints" / "last.ckpt", older / "results.json"):
        file.touch()
        os.utime(file, (time.time() - 3600,) * 2)
    capsys.readouterr()
    assert launch_here("ckpt_path=latest", "trainer.max_epochs=2", "tags=[longer,'2']", "note=it's more") == 0
    assert f"ckpt_path=latest is {Path('outputs', 'runs', run.name)}" in capsys.readouterr().out
    written = results(run)
    assert (written["epochs"], written["tags"], written["note"]) == (2, ["longer", "2"], "it's more")
    assert launch_here("ckpt_path=latest") == 0
    assert "is complete; a higher trainer.max_epochs goes on with it" in capsys.readouterr().out
    with FileLock(run / ".lock"):  # as another process that writes to it; the next older is not what is meant
        assert launch_here("ckpt_path=latest", "trainer.max_epochs=3") == 2
    assert "another run is writing to it" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "folder"), [([], "outputs/runs"), (["hydra.run.dir=mine/next"], "mine")])
def test_no_run_to_go_on_with_is_one_line(launch_here, tmp_path, capsys, given, folder):
    assert launch_here(*TINY, "ckpt_path=latest", *given) == 2
    message = capsys.readouterr().err
    assert message == f"error: ckpt_path=latest: there is no run with a checkpoint in {Path(folder)}\n"
    assert list(tmp_path.iterdir()) == []


# Lists of options


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer=[sgd,adam]", "optimizer=[sgd,adam]: must be one option; lists are for callbacks and logger"),
        (
            "callbacks=[default,early_stoping]",
            "callbacks=early_stoping: must be one of dashboard, default, early_stopping, ema; "
            "did you mean early_stopping?",
        ),
        ("logger=[csv,tensorbord]", "did you mean tensorboard?"),
    ],
)
def test_a_list_that_cannot_be_composed_is_refused_in_a_line(launch_here, tmp_path, capsys, override, message):
    assert launch_here(*TINY, override) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_run_with_lists_of_options_goes_on(launch_here, tmp_path):
    lists = ("callbacks=[default,ema,early_stopping]", "logger=[tensorboard,csv]", "~callbacks.progress_bar")
    assert launch_here(*TINY, "trainer.max_epochs=1", *lists, "hydra.run.dir=run") == 0
    assert launch_here("ckpt_path=run", "trainer.max_epochs=2") == 0
    assert results(tmp_path / "run")["epochs"] == 2
    assert (tmp_path / "run" / "metrics.csv").exists()
    assert list((tmp_path / "run").glob("events.out.tfevents*"))
    kept = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "WeightEMA" in kept
    assert "EarlyStopping" in kept
    assert "ProgressBar" not in kept


# A machine's own settings


@pytest.fixture
def machine(tmp_path) -> Path:
    """The file with the settings of a machine, in a folder that ``--config-dir`` names."""
    file = tmp_path / "conf" / "local" / "default.yaml"
    file.parent.mkdir(parents=True)
    return file


def test_a_machines_own_settings_lose_to_experiments_and_to_the_command_line(launch_here, machine, capsys):
    def shown(*arguments: str) -> str:
        capsys.readouterr()
        launch_here("--config-dir", "conf", *arguments, "--cfg", "job")
        return "".join(capsys.readouterr())

    head = "# @package _global_\ndefaults:\n  - override /optimizer: "
    machine.write_text(head + "adam\nnum_threads: 3\ndata: {batch_size: 128}\n")
    experiment = machine.parents[1] / "experiment" / "mine.yaml"
    experiment.parent.mkdir()
    experiment.write_text(head + "muon\ndata: {batch_size: 256}\n")
    for arguments, expected in {
        (): ("torch.optim.Adam\n", "num_threads: 3\n", "  batch_size: 128\n"),
        ("experiment=mine",): ("MuonWithAdamW\n", "num_threads: 3\n", "  batch_size: 256\n"),
        ("experiment=mine", "num_threads=2"): ("MuonWithAdamW\n", "num_threads: 2\n", "  batch_size: 256\n"),
        ("~local",): ("torch.optim.SGD\n", "num_threads: null\n", "  batch_size: 64\n"),
        ("local=other",): ("error: local=other: must be one of default",),
    }.items():
        text = shown(*arguments)
        assert [part for part in expected if part not in text] == [], arguments


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("num_threads: 3\n", "the first line of a file in local/ must be # @package _global_"),
        ("# @package _global_\nseed: -1\n", "seed=-1: must be a whole number from 0"),
        ("# @package _global_\ncallbacks: {x: {_target_: os.system}}\n", "callbacks.x._target_=os.system: not a class"),
        ("# @package _global_\nnum_thread: 3\n", "num_thread: no such key; did you mean num_threads?"),
    ],
)
def test_a_machines_own_settings_are_checked_as_any(launch_here, machine, tmp_path, capsys, content, message):
    machine.write_text(content)
    assert launch_here("--config-dir", "conf", *TINY) == 2
    assert message in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["conf"]


# Notes and tags


@pytest.mark.parametrize(
    ("typed", "note"),
    [
        ("why, and [what] it's for", None),
        ("a=b {c}", None),
        ("true", None),
        ("5", None),
        ('"quoted" (maybe)', None),
        ("ends in \\", None),
        ("'all, quoted'", "all, quoted"),
    ],
)
def test_a_note_is_taken_as_it_is_typed(launch_here, monkeypatch, typed, note):
    seen = []
    monkeypatch.setattr("fmnist_lit.command_line.launch.run_job", lambda cfg: seen.append(cfg.note))
    launch_here(*TINY, f"note={typed}", "hydra.run.dir=run")
    assert seen == [note or typed]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tags=a", "tags=a: must be a list of text"),
        ("tags=[1]", "tags=[1]: must be a list of text, such as [baseline,'2nd']"),
        ("tags=['']", "must be a list of text"),
        ("tags=a,b", "tags=a,b: must be a list, as in tags=[baseline,first]"),
        ("note=''", "note=: must be text or null"),
        ("tag=[a]", "tag: no such key; did you mean tags?"),
    ],
)
def test_labels_of_another_kind_are_refused(launch_here, tmp_path, capsys, override, message):
    assert launch_here(*TINY, override) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
