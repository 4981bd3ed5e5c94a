import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import options
from omegaconf import DictConfig, OmegaConf

import fmnist_lit.command_line.launch
import fmnist_lit.run.names

TINY = (
    "data=synthetic",
    "data.train_size=128",
    "data.val_size=64",
    "data.test_size=100",
    "model.hidden_sizes=[8]",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "num_threads=1",
)


STATUS_OF_SEED = {1: "diverged", 2: "failed", 3: "running"}


@pytest.fixture
def jobs(monkeypatch) -> list[DictConfig]:
    """The configurations that were run; a job only writes the status that goes with its seed."""
    seen = []

    def run(cfg: DictConfig) -> float:
        seen.append(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))
        results = {"status": STATUS_OF_SEED.get(cfg.seed, "completed")}
        Path(cfg.run_dir, "results.json").write_text(json.dumps(results))
        return 0.5

    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", run)
    return seen


def folders(path: Path) -> list[str]:
    return sorted(folder.name for folder in path.iterdir() if folder.is_dir())


def runs_in(path: Path) -> list[str]:
    return [name for name in folders(path) if (path / name / "results.json").exists()]


@pytest.mark.parametrize(("seed", "code"), [(0, 0), (1, 1), (2, 1), (3, 1)])
def test_exit_code_says_how_the_run_ended(launch_here, jobs, seed, code):
    assert launch_here(f"seed={seed}") == code


@pytest.mark.parametrize(("seeds", "code"), [("0,4", 0), ("0,1", 1), ("2,0", 1)])
def test_exit_code_of_a_sweep_is_that_of_its_worst_job(launch_here, jobs, seeds, code):
    assert launch_here("-m", f"seed={seeds}") == code
    assert len(jobs) == 2


def test_run_that_writes_no_status_has_failed(launch_here, monkeypatch):
    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", lambda cfg: None)
    assert launch_here() == 1


def test_run_gets_a_folder_of_its_own_with_date_and_time(launch_here, jobs, tmp_path):
    launch_here()
    (name,) = folders(tmp_path / "outputs" / "runs")
    assert re.match(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_", name)
    assert Path(jobs[0].run_dir).resolve() == (tmp_path / "outputs" / "runs" / name).resolve()


def test_run_folder_holds_the_configuration(launch_here, jobs, tmp_path):
    launch_here("optimizer.lr=0.25", "hydra.run.dir=here")
    assert folders(tmp_path / "here") == [".hydra"]
    assert sorted(file.name for file in (tmp_path / "here" / ".hydra").iterdir()) == [
        "config.yaml",
        "hydra.yaml",
        "overrides.yaml",
    ]
    assert "lr: 0.25" in (tmp_path / "here" / ".hydra" / "config.yaml").read_text()
    assert "optimizer.lr=0.25" in (tmp_path / "here" / ".hydra" / "overrides.yaml").read_text()
    assert (tmp_path / "here" / "train.log").exists()


def test_two_runs_of_the_same_second_and_token_get_two_folders(launch_here, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("hydra.core.utils.datetime", SimpleNamespace(now=lambda: datetime(2026, 1, 1)))
    monkeypatch.setattr(fmnist_lit.run.names.secrets, "token_hex", lambda _: "aaaaaa")
    assert launch_here() == 0
    tokens = iter(["aaaaaa"] * 8)
    monkeypatch.setattr(fmnist_lit.run.names.secrets, "token_hex", lambda _: next(tokens, "bbbbbb"))
    assert launch_here() == 0
    assert [name[-6:] for name in runs_in(tmp_path / "outputs" / "runs")] == ["aaaaaa", "bbbbbb"]
    assert len(jobs) == 2


def test_ten_runs_started_together_get_ten_folders(tmp_path):
    program = (
        "import sys; from fmnist_lit.command_line import launch; "
        "from contextlib import ExitStack; "
        "print(launch.prepare(launch.get_args_parser().parse_args(['seed=1']), ExitStack()).folder)"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for _ in range(10)
    ]
    named = [process.communicate(timeout=120)[0].strip() for process in started]
    assert len(set(named)) == 10
    assert all((tmp_path / name).is_dir() for name in named)


@pytest.mark.parametrize("name", ["here", "some/where", "with space", "with'quote", "größe"])
def test_hydra_run_dir_names_the_folder(launch_here, jobs, tmp_path, name):
    quoted = name.replace("'", "\\'")
    assert launch_here(f"hydra.run.dir='{quoted}'") == 0
    assert (tmp_path / name / "results.json").exists()
    assert not (tmp_path / "outputs").exists()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    (tmp_path / "me").mkdir()
    return tmp_path / "me"


def named_tilde(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.startswith(("~", "$"))]


@pytest.mark.parametrize(
    ("arguments", "run"),
    [
        (["hydra.run.dir=~/x y"], "x y"),
        (["hydra.run.dir='~/x'"], "x"),
        (["-m", "hydra.sweep.dir=~/x", "seed=0,4"], "x/seed=4"),
        (["-m", "hydra.sweep.dir='~/x'", "seed=0,4"], "x/seed=4"),
    ],
    ids=" ".join,
)
def test_folder_in_the_home_is_made_there(launch_here, jobs, tmp_path, home, arguments, run):
    assert launch_here(*arguments) == 0
    assert (home / run / "results.json").exists()
    assert named_tilde(tmp_path) == []
    assert folders(tmp_path) == ["me"]


@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "data.data_dir", "ckpt_path"])
@pytest.mark.parametrize("path", ["~nobody-at-all/x", "$HOME/x", "a/~/x"])
def test_folder_of_a_dangerous_name_is_refused_in_a_line(launch_here, jobs, tmp_path, capsys, key, path):
    assert launch_here(f"{key}={path}") == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {key}={path}: ")
    assert message.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_home_in_the_environment_variable_is_expanded(launch_here, jobs, home, monkeypatch, capsys):
    monkeypatch.setenv("FMNIST_DATA_DIR", "~/d")
    assert launch_here() == 0
    assert jobs[0].data.data_dir == str(home / "d")
    monkeypatch.setenv("FMNIST_DATA_DIR", "$HOME/d")
    assert launch_here() == 2
    assert "FMNIST_DATA_DIR=$HOME/d: $HOME is not expanded" in capsys.readouterr().err


def test_configurations_in_the_home_are_found_and_may_name_folders_there(launch_here, jobs, tmp_path, home):
    (home / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nseed: 4\nhydra: {run: {dir: ~/mine}}\ndata: {data_dir: ~/d}\n"
    (home / "conf" / "experiment" / "own.yaml").write_text(text)
    assert launch_here("--config-dir=~/conf", "experiment=own") == 0
    assert (jobs[0].seed, jobs[0].run_dir) == (4, str(home / "mine"))
    assert launch_here("hydra.searchpath=[~/conf]", "experiment=own", "hydra.run.dir=~/other") == 0
    assert (jobs[1].seed, jobs[1].run_dir) == (4, str(home / "other"))
    assert named_tilde(tmp_path) == []


def test_cfg_job_shows_paths_as_a_run_takes_them(launch_here, home, capsys):
    assert launch_here("--cfg", "job", "data.data_dir=~/d") == 0
    assert f"data_dir: {home / 'd'}" in capsys.readouterr().out


def test_folder_that_holds_a_run_is_refused_and_left_alone(launch_here, jobs, tmp_path, capsys):
    launch_here("hydra.run.dir=here")
    before = {file: file.read_bytes() for file in (tmp_path / "here").rglob("*") if file.is_file()}
    capsys.readouterr()
    assert launch_here("hydra.run.dir=here", "seed=7") == 2
    message = capsys.readouterr().err
    assert "hydra.run.dir=here" in message
    assert "ckpt_path=here" in message
    assert len(jobs) == 1
    assert {file: file.read_bytes() for file in (tmp_path / "here").rglob("*") if file.is_file()} == before


def test_empty_folder_may_be_named(launch_here, jobs, tmp_path):
    (tmp_path / "here").mkdir()
    assert launch_here("hydra.run.dir=here") == 0


def test_folder_that_is_a_file_is_refused(launch_here, jobs, tmp_path, capsys):
    (tmp_path / "here").write_text("mine")
    assert launch_here("hydra.run.dir=here") == 2
    assert "hydra.run.dir=here" in capsys.readouterr().err
    assert (tmp_path / "here").read_text() == "mine"


def test_sweep_runs_every_combination_in_one_folder(launch_here, jobs, tmp_path):
    assert launch_here("-m", "optimizer.lr=1e-3,1e-2,1e-1", "data.batch_size=32,64") == 0
    seen = {(cfg.optimizer.lr, cfg.data.batch_size) for cfg in jobs}
    assert seen == {(lr, size) for lr in (1e-3, 1e-2, 1e-1) for size in (32, 64)}
    (sweep,) = folders(tmp_path / "outputs" / "sweeps")
    names = runs_in(tmp_path / "outputs" / "sweeps" / sweep)
    assert len(names) == 6
    assert all(re.fullmatch(r"[\w.=,+-]+", name) for name in names)
    for name in names:
        assert re.search(r"lr=(0\.001|0\.01|0\.1|1e-[123])", name)
        assert re.search(r"batch_size=(32|64)", name)


def test_hydra_sweep_dir_names_the_folder(launch_here, jobs, tmp_path):
    assert launch_here("-m", "seed=0,4", "hydra.sweep.dir=here") == 0
    assert len(runs_in(tmp_path / "here")) == 2


def test_installed_configuration_is_found_wherever_the_program_is_started(launch_here, jobs):
    assert fmnist_lit.command_line.compose.CONF.is_absolute()
    assert launch_here() == 0


# As a user runs it


def python(program: str, folder: Path) -> str:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize(
    "arguments",
    [["optimizer.lr=nan"], ["-m", "optimizer=sgd,adma"], ["--help"], ["--cfg", "job"]],
    ids=" ".join,
)
def test_nothing_heavy_is_imported_before_there_is_something_to_train(tmp_path, arguments):
    program = (
        f"import sys; sys.argv[1:] = {arguments}\n"
        "from fmnist_lit.command_line.launch import launch\n"
        f"try: launch({arguments})\n"
        "finally: print('HEAVY', {'torch', 'lightning', 'torchvision', 'tensorboard'} & sys.modules.keys())"
    )
    assert "HEAVY set()" in python(program, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_bad_command_line_exits_with_2_and_one_line(command, tmp_path):
    finished = command("optimizer.lr=nan")
    assert (finished.returncode, finished.stdout) == (2, "")
    assert finished.stderr == "error: optimizer.lr=nan: must be a finite number > 0\n"
    assert list(tmp_path.iterdir()) == []


def test_help_shows_groups_keys_and_examples(command):
    finished = command("--help")
    assert finished.returncode == 0
    for part in ("optimizer: ", "sgd_nesterov", "optimizer.lr", "data.batch_size", "experiment=tutorial", "-m "):
        assert part in finished.stdout


@pytest.mark.parametrize(
    ("argument", "told"),
    [("optimizer=adma", "did you mean adam?"), ("sed=1", "did you mean seed?"), ("loss=null", "conf/loss")],
)
def test_cfg_job_of_what_cannot_be_composed_is_an_error_of_one_line(launch_here, capsys, argument, told):
    assert launch_here("--cfg", "job", argument) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert told in captured.err
    assert captured.out == ""


def test_cfg_job_prints_the_configuration(command, tmp_path):
    finished = command("--cfg", "job", "optimizer=adam")
    assert finished.returncode == 0
    assert "torch.optim.Adam" in finished.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run by command line, looked at by several tests."""
    folder = tmp_path_factory.mktemp("run")
    arguments = [*TINY, "data=auto", "data.data_dir=nothing", "hydra.run.dir=mine", "trainer.max_epochs=2"]
    program = (
        "import sys; from torchvision.datasets import FashionMNIST; FashionMNIST.mirrors = ['http://127.0.0.1:1/']\n"
        f"sys.argv[1:] = {arguments}\n"
        "from fmnist_lit.__main__ import main; main()"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    return folder / "mine", finished


def test_run_leaves_the_files_of_a_run_folder(finished_run):
    folder, finished = finished_run
    assert finished.returncode == 0, finished.stderr
    files = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.name != ".lock"}
    (events,) = [name for name in files if name.startswith("events.out.tfevents")]
    assert files - {events} == {
        "results.json",
        "metrics.csv",
        "val_correct.json",
        "train.log",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
    }


def test_results_hold_what_the_contract_names(finished_run):
    results = json.loads((finished_run[0] / "results.json").read_text())
    assert results["status"] == "completed"
    assert results["dataset"] == "synthetic"
    assert results["epochs"] == 2
    assert results["seed"] == 0
    assert results["best_epoch"] in (1, 2)
    assert results["checkpoint"] == "checkpoints/best.ckpt"
    assert results["seconds"] > 0
    for key in ("test_accuracy", "val_accuracy"):
        assert 0 <= results[key] <= 1
    for key in ("test_loss", "val_loss"):
        assert results[key] > 0


def test_stand_in_is_announced_at_the_start_and_in_the_summary(finished_run):
    lines = finished_run[1].stdout.splitlines()
    mentions = [number for number, line in enumerate(lines) if "SYNTHETIC" in line]
    epochs = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    assert len(epochs) == 2
    assert mentions[0] < epochs[0]
    assert mentions[-1] > epochs[-1]


def test_screen_shows_plain_lines_where_it_is_no_terminal(finished_run):
    _, finished = finished_run
    assert finished.stderr == ""
    assert "\x1b" not in finished.stdout
    assert "\r" not in finished.stdout


def test_summary_says_accuracy_loss_folder_and_tensorboard_command(finished_run):
    folder, finished = finished_run
    results = json.loads((folder / "results.json").read_text())
    summary = finished.stdout[finished.stdout.rindex("epoch 2/2") :]
    assert f"{100 * results['test_accuracy']:.1f}" in summary
    assert f"{results['test_loss']:.2f}"[:-1] in summary
    assert "mine" in summary
    assert "tensorboard --logdir" in summary


def test_log_file_repeats_the_screen(finished_run):
    folder, finished = finished_run
    log = (folder / "train.log").read_text()
    missing = [line for line in finished.stdout.splitlines() if line.strip() not in log]
    assert missing == []


def test_sweep_by_command_line_trains_every_combination(command, tmp_path):
    finished = command("-m", *TINY, "optimizer.lr=1e-3,1e-2", "data.batch_size=32,64")
    assert finished.returncode == 0, finished.stderr
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    names = runs_in(sweep)
    assert len(names) == 4
    for name in names:
        results = json.loads((sweep / name / "results.json").read_text())
        assert results["status"] == "completed"
        assert (sweep / name / "metrics.csv").exists()
    assert len({json.loads((sweep / name / "results.json").read_text())["train_loss"] for name in names}) == 4


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fmnist-lit optimizer=ad", {"optimizer=adagrad", "optimizer=adam", "optimizer=adamw"}),
        ("fmnist-lit -m loss=mse callbacks=", {f"callbacks={name}" for name in options("callbacks")}),
        ("fmnist-lit select.m", {"select.metric=", "select.mode="}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_is_told_what_may_follow(launch_here, monkeypatch, capsys, tmp_path, line, expected, shell):
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setenv("COMP_POINT", str(len(line)))
    assert launch_here("-sc", f"query={shell}") == 0
    assert set(capsys.readouterr().out.split()) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32" or not shutil.which("bash"), reason="needs bash")
def test_bash_completes_the_command_after_the_documented_line(tmp_path):
    """The command is a script here that runs this Python, whatever environment is active."""
    script = tmp_path / "fmnist-lit"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fmnist_lit "$@"\n')
    script.chmod(0o755)
    program = """
        eval "$(fmnist-lit -sc install=bash)"
        complete -p fmnist-lit
        COMP_LINE="fmnist-lit study=lo"; COMP_POINT=${#COMP_LINE}; COMP_CWORD=1; hydra_bash_completion
        echo "${COMPREPLY[@]}"
    """
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    answer = subprocess.run(
        ["bash", "-c", program], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines() == [
        "complete -o default -o nospace -F hydra_bash_completion fmnist-lit",
        "study=losses",
    ]


def test_a_shell_that_cannot_be_completed_is_refused_in_a_line(launch_here, capsys):
    assert launch_here("-sc", "install=tcsh") == 2
    message = capsys.readouterr().err
    assert message == "error: -sc install=tcsh: must be install=, uninstall= or query= with bash, zsh or fish\n"
