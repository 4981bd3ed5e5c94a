"""A run by Python is that of the command line, and a guest in the process."""

import asyncio
import copy
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import warnings

import hydra
import matplotlib
import numpy as np
import pytest
import torch
from conftest import QUIET, SMALL
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.version import getbase
from interruptions import RUN, interrupting, outcome, results, signal_at

import fmnist_lit
import fmnist_lit.train
from fmnist_lit.api.guest import being_a_guest
from fmnist_lit.classifier import Classifier
from fmnist_lit.config.trust import trusted_packages
from fmnist_lit.processes.signals import SIGNALS, stop_request

ONE = (*SMALL, *QUIET, "trainer.max_epochs=1")
LONGER = (*SMALL, *QUIET, *RUN)
BROKEN = (*ONE, "+trainer.profiler=nothing")  # which only Lightning knows


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """The working folder; nothing is put back but by the package itself."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(autouse=True)
def ctrl_c():
    """Ctrl-C as Python has it, also in a process that a shell has started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_run_is_that_of_the_command_line_and_so_is_the_second_one(launch_here, tmp_path):
    assert launch_here(*SMALL, "hydra.run.dir=typed") == 0
    typed = outcome(tmp_path / "typed")
    for name in ("called", "again"):
        run = fmnist_lit.train(*SMALL, f"hydra.run.dir={name}")
        assert (run.folder, run.status) == (tmp_path / name, "completed")
        assert outcome(run.folder) == typed
        files, expected = (
            sorted(file.name.split(".")[0] for file in folder.rglob("*")) for folder in (run.folder, tmp_path / "typed")
        )
        assert files == expected
    assert run.results["test_accuracy"] == typed["results"]["test_accuracy"]


@pytest.mark.parametrize("words", [["optimizer.lr=nan"], ["optimizer=adma"], ["seed=0,1"], ["ckpt_path=no"], ["--no"]])
def test_error_is_an_exception_with_the_sentence_of_the_command_line(launch_here, tmp_path, capsys, words):
    assert launch_here(*words) == 2
    told = capsys.readouterr().err
    with pytest.raises(fmnist_lit.ConfigError) as error:
        fmnist_lit.train(*words)
    assert f"error: {error.value}\n" == told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "error", "told"),
    [
        (["study=optimizers"], fmnist_lit.ConfigError, "fmnist_lit.sweep"),
        (["-m", "seed=0,1"], fmnist_lit.ConfigError, "fmnist_lit.sweep"),
        (["--help"], fmnist_lit.ConfigError, "for the command line"),
        (["--cfg=job"], fmnist_lit.ConfigError, "for the command line"),
        ([["seed=0"]], TypeError, "must be text"),
    ],
)
def test_what_is_no_run_is_refused(tmp_path, words, error, told):
    with pytest.raises(error, match=told):
        fmnist_lit.train(*words)
    assert not list(tmp_path.iterdir())


def test_diverged_run_is_a_result(tmp_path):
    run = fmnist_lit.train(*ONE, "optimizer.lr=1e30", "loss=mse")
    assert (run.status, run.results["diverged_step"]) == ("diverged", 2)
    assert repr(run).startswith("<Run: diverged at step 2, SYNTHETIC stand-in for Fashion-MNIST, 0 epochs, ")


def test_failed_run_is_an_error_that_has_the_run_and_what_it_failed_by(tmp_path):
    with pytest.raises(fmnist_lit.RunFailedError, match="profiler") as error:
        fmnist_lit.train(*BROKEN)
    assert error.value.run.status == "failed"
    assert str(error.value).startswith(error.value.run.results["error"])
    assert type(error.value.__cause__).__name__ == "MisconfigurationException"
    assert (error.value.run.folder / "train.log").read_text().count("Traceback") == 1


def test_resume_that_is_refused_only_then_is_a_config_error(tmp_path):
    fmnist_lit.train(*ONE, "hydra.run.dir=run")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"damaged")
    before = results(tmp_path / "run")
    with pytest.raises(fmnist_lit.ConfigError, match=r"last\.ckpt: "):
        fmnist_lit.load_run("run").resume("trainer.max_epochs=2")
    assert results(tmp_path / "run") == before


# The process


def state() -> dict[str, object]:
    """What of a process a run changes, and somebody else would miss."""
    loggers = {"": logging.getLogger(), **logging.root.manager.loggerDict}
    return {
        "loggers": {
            name: (logger.handlers[:], logger.level, logger.propagate, logger.disabled, logger.filters[:])
            for name, logger in loggers.items()
            if isinstance(logger, logging.Logger) and not name.startswith(("hydra", "fmnist_lit"))
        },
        "handlers": [reference() for reference in logging._handlerList if reference() is not None],
        "variables": {**os.environ, "PYTEST_CURRENT_TEST": ""},
        "signals": [signal.getsignal(signum) for signum in SIGNALS],
        "words": (sys.argv[:], os.getcwd(), sys.stdout, sys.stderr),
        "warnings": warnings.filters[:],
        "raises": logging.raiseExceptions,
        "threads": torch.get_num_threads(),
        "switches": (torch.are_deterministic_algorithms_enabled(), torch.get_float32_matmul_precision()),
        "streams": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "style": dict(matplotlib.rcParams),
        "hydra": (GlobalHydra.instance(), GlobalHydra.instance().hydra, HydraConfig.instance().cfg, getbase()),
    }


@pytest.fixture
def somebody(tmp_path, monkeypatch):
    """Another application in this process: with a Hydra of its own, logging, and a seed."""
    import lightning.pytorch  # noqa: F401  makes its loggers

    (tmp_path / "theirs.yaml").write_text("a: 1\nb: ${now:%Y}\n")
    written = logging.FileHandler(tmp_path / "theirs.log", mode="w")
    monkeypatch.setattr(logging.root, "handlers", [*logging.root.handlers, written])
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    monkeypatch.setenv("FMNIST_DATA_DIR", "~/somewhere")
    torch.manual_seed(5)
    with hydra.initialize_config_dir(str(tmp_path), version_base="1.2"):
        config = HydraConfig.instance()
        before, config.cfg = config.cfg, hydra.compose("theirs", return_hydra_config=True)
        yield
        assert hydra.compose("theirs", ["a=2"]).a == 2
        config.cfg = before
    logging.getLogger("theirs").error("still here")
    written.close()
    assert (tmp_path / "theirs.log").read_text() == "still here\n"


def refused() -> None:
    with pytest.raises(fmnist_lit.ConfigError):
        fmnist_lit.train("optimizer.lr=nan")


def failing() -> None:
    with pytest.raises(fmnist_lit.RunFailedError):
        fmnist_lit.train(*BROKEN)


def interrupted() -> None:
    with signal_at(3, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        fmnist_lit.train(*ONE, "hydra.run.dir=run")


def sweeping() -> None:
    fmnist_lit.sweep(*ONE, "num_threads=1,2", "trainer.matmul_precision=medium", "+trainer.deterministic=true")


@pytest.mark.parametrize("work", [refused, failing, interrupted, sweeping])
def test_process_is_as_before(somebody, work):
    before = state()
    work()
    after = state()
    loggers = after["loggers"]
    after["loggers"] = {name: loggers[name] for name in before["loggers"]}  # more may have been made
    for part, value in before.items():
        assert after[part] == value, part


def test_run_in_a_thread_waits_for_that_in_another(tmp_path):
    done = []
    threads = [
        threading.Thread(target=lambda seed=seed: done.append(fmnist_lit.train(*ONE, f"seed={seed}"))) for seed in "01"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [run.status for run in done] == ["completed", "completed"]
    assert {run.results["seed"] for run in done} == {0, 1}


def test_run_within_a_run_is_refused():
    with being_a_guest(), pytest.raises(RuntimeError, match="cannot start another"):
        fmnist_lit.train(*ONE)


def test_run_in_an_event_loop(tmp_path):
    async def cell() -> fmnist_lit.Run:
        return fmnist_lit.train(*ONE)

    run = asyncio.run(cell())
    assert run.status == "completed"
    assert fmnist_lit.load_run("latest").folder == run.folder


# The stop button


def test_interrupted_run_goes_on_to_the_same_bits(tmp_path, capsys):
    whole = fmnist_lit.train(*LONGER, "hydra.run.dir=whole")
    with signal_at(11, signal.SIGINT), pytest.raises(KeyboardInterrupt) as stop:
        fmnist_lit.train(*LONGER, "hydra.run.dir=part")
    assert str(stop.value) == "by SIGINT; fmnist_lit.load_run('part').resume() goes on"
    run = fmnist_lit.load_run("part")
    with pytest.raises(fmnist_lit.NoSuchRunError, match="latest: there is no run"):
        fmnist_lit.load_run("latest")
    assert (run.status, len(run.metrics), run.data) == ("interrupted", 1, whole.data)
    with signal_at(14, signal.SIGINT), pytest.raises(KeyboardInterrupt):
        run.resume()
    assert run.resume().status == "completed"
    assert outcome(run.folder) == outcome(whole.folder)
    capsys.readouterr()
    assert run.resume().status == "completed"
    assert capsys.readouterr().out.endswith("is complete; a higher trainer.max_epochs goes on with it\n")
    assert len(run.resume("trainer.max_epochs=4").metrics) == len(run.metrics) == 4


def test_interruption_before_there_is_a_run(tmp_path, monkeypatch):
    interrupting(monkeypatch, fmnist_lit.api.starting, "begin", signum=signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="by SIGINT"):
        fmnist_lit.train(*ONE)
    assert not list(tmp_path.iterdir())


def test_second_interruption_does_not_wait_and_the_process_lives_on(tmp_path, monkeypatch):
    reached = []

    def hook(self: Classifier, optimizer: object) -> None:
        signal.raise_signal(signal.SIGINT)
        reached.append("the first waits for the step")
        signal.raise_signal(signal.SIGINT)
        reached.append("the second does not")

    monkeypatch.setattr(Classifier, "on_before_optimizer_step", hook)
    with pytest.raises(KeyboardInterrupt):
        fmnist_lit.train(*ONE, "hydra.run.dir=run")
    assert reached == ["the first waits for the step"]
    assert results(tmp_path / "run")["status"] == "interrupted"
    assert not stop_request.is_guest


def test_other_signal_goes_to_who_had_it_before(tmp_path, monkeypatch):
    seen = []
    before = signal.signal(signal.SIGTERM, lambda *_: seen.append(results(tmp_path / "run")["status"]))
    try:
        with signal_at(3, signal.SIGTERM):
            run = fmnist_lit.train(*ONE, "hydra.run.dir=run")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == ["interrupted"] == [run.status]


# The package


def test_modules_of_the_same_names_can_be_called_and_are_modules():
    assert fmnist_lit.train.make_trainer.__module__ == "fmnist_lit.build"
    assert fmnist_lit.sweep.__name__ == "fmnist_lit.sweep"
    for part in (fmnist_lit, fmnist_lit.train, fmnist_lit.sweep):
        assert pickle.loads(pickle.dumps(part)) is part
        assert copy.copy(part) is part
    with pytest.raises(fmnist_lit.ConfigError):
        fmnist_lit.sweep("optimizer.lr=nan,1")
    assert all(hasattr(fmnist_lit, name) for name in fmnist_lit.__all__)


def test_import_is_light_and_what_is_wrong_is_said_before_torch_is_there(tmp_path):
    program = (
        "import sys, fmnist_lit\n"
        "print(set(fmnist_lit.__all__) - set(dir(fmnist_lit)))\n"
        "print({'hydra', 'torch', 'lightning', 'matplotlib', 'numpy'} & set(sys.modules))\n"
        "try:\n    fmnist_lit.train('optimizer.lr=nan')\n"
        "except fmnist_lit.ConfigError as error:\n    print(error)\n"
        "print({'torch', 'lightning', 'matplotlib'} & set(sys.modules))\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == "set()\nset()\noptimizer.lr=nan: must be a finite number > 0\nset()\n"


def test_what_is_trusted_and_where_it_is_configured_is_known_when_the_run_goes_on(tmp_path, monkeypatch):
    (tmp_path / "my_conf" / "model").mkdir(parents=True)
    (tmp_path / "my_conf" / "model" / "flat.yaml").write_text("_target_: theirs.Flat\n")
    program = "from torch import nn\nclass Flat(nn.Sequential):\n"
    program += "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Linear(784, 10))\n"
    (tmp_path / "theirs.py").write_text(program)
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setitem(sys.modules, "theirs", None)
    del sys.modules["theirs"]
    words = (*(word for word in ONE if not word.startswith("model.")), "model=flat", "hydra.run.dir=run")
    with pytest.raises(fmnist_lit.ConfigError, match="model=flat: must be one of"):
        fmnist_lit.train(*words)
    with pytest.raises(fmnist_lit.ConfigError, match="add --trust theirs"):
        fmnist_lit.train("--config-dir=my_conf", *words)
    run = fmnist_lit.train("--config-dir", "my_conf", *words, trust="theirs")
    monkeypatch.chdir("/")
    assert len(run.resume("trainer.max_epochs=2").metrics) == 2
    assert run.classifier().model[1].in_features == 784
    with pytest.raises(fmnist_lit.CheckpointError, match="add --trust theirs"):
        fmnist_lit.load_run(run.folder).classifier()
    assert not trusted_packages()
