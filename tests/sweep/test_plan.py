import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

import fmnist_lit.command_line.launch
from fmnist_lit.command_line import sweeps
from fmnist_lit.command_line.job import resume_hint
from fmnist_lit.sweep.plan import read_plan
from fmnist_lit.sweep.summary import summarize

BASE = ("-m", "data=synthetic", "hydra.sweep.dir=sweep")
LOSSES = ["bce_with_logits", "cross_entropy", "l1", "label_smoothing", "mse", "nll"]


@pytest.fixture
def ran(monkeypatch) -> SimpleNamespace:
    """What ran: folders in the sweep's, numbers, configurations. A job only writes a status, by its seed; no charts."""
    seen = SimpleNamespace(folders=[], numbers=[], configs=[], hints=[], failing=set())

    def run(cfg: DictConfig) -> float:
        hydra = HydraConfig.get()
        folder = Path(cfg.run_dir)
        if hydra.mode.name == "MULTIRUN":
            seen.folders.append(folder.relative_to(Path(hydra.sweep.dir).absolute()).as_posix())
            seen.numbers.append(hydra.job.num)
        seen.configs.append(OmegaConf.create(OmegaConf.to_container(cfg, resolve=True)))
        (folder / "checkpoints").mkdir(exist_ok=True)
        (folder / "checkpoints" / "last.ckpt").touch()
        seen.hints.append(resume_hint(folder))
        status = "failed" if cfg.seed in seen.failing else "completed"
        results = {"status": status, "dataset": "synthetic", "seed": cfg.seed, "val_accuracy": 0.5, "val_loss": 1.0}
        (folder / "results.json").write_text(json.dumps(results))
        return 0.5

    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", run)
    monkeypatch.setattr(sweeps, "summarize", lambda folders, charts: summarize(folders, charts=False))
    return seen


@pytest.mark.parametrize(
    ("arguments", "folders"),
    [
        (["loss=glob(*)"], [f"loss={name}" for name in LOSSES]),
        (["loss=glob([l*,m*],exclude=*smoothing)"], ["loss=l1", "loss=mse"]),
        (["seed=4,5", "hydra.sweep.subdir=${hydra.job.num}"], ["0", "1"]),
        (["seed=4,5", "hydra.sweep.subdir=job_${hydra:job.num}"], ["job_0", "job_1"]),
        (
            ["seed=4,5", "hydra.sweep.subdir=${hydra:runtime.choices.loss}/${seed}"],
            ["cross_entropy/4", "cross_entropy/5"],
        ),
        (
            [
                "seed=4,5",
                "optimizer.lr=0.1,0.2",
                "hydra.sweep.subdir='${hydra.job.override_dirname}/seed=${seed}'",
                "hydra.job.config.override_dirname.exclude_keys=[seed]",
            ],
            [
                "optimizer.lr=0.1/seed=4",
                "optimizer.lr=0.2/seed=4",
                "optimizer.lr=0.1/seed=5",
                "optimizer.lr=0.2/seed=5",
            ],
        ),
        (["seed=range(4,6)", "hydra.sweeper.max_batch_size=1"], ["seed=4", "seed=5"]),
        (["seed=0,1", "seed=4,5"], ["seed=4", "seed=5"]),
        (["callbacks=default,[default,ema]"], ["callbacks=default", "callbacks=_default,ema_"]),
        (["seed=4,5", "tags=[a]", "note=why, and [what]"], ["seed=4", "seed=5"]),
        (["++seed=choice(4,5)", "~callbacks.progress_bar", "sweep.fail_fast=true"], ["++seed=4", "++seed=5"]),
        (["seed=shuffle(range(0,8))"], None),
    ],
)
def test_the_plan_is_what_runs(launch_here, ran, tmp_path, arguments, folders):
    assert launch_here(*BASE, *arguments) == 0
    planned = read_plan(tmp_path / "sweep")
    assert ran.folders == [job.folder for job in planned.jobs]
    assert folders is None or ran.folders == folders
    assert ran.numbers == list(range(len(planned.jobs)))
    assert {job.status for job in summarize([tmp_path / "sweep"], charts=False).table.jobs} == {"completed"}
    assert all(cfg.sweep.fail_fast == ("sweep.fail_fast=true" in arguments) for cfg in ran.configs)


@pytest.mark.parametrize("values", ["a/b,a_b,A_B,a_b_,'é','e\u0301'", f"{'x' * 200}a,{'x' * 200}b"])
def test_values_whose_folder_names_coincide_get_folders_of_their_own(launch_here, ran, tmp_path, values):
    assert launch_here(*BASE, f"data.data_dir={values}") == 0
    wanted = values.split(",")
    assert [cfg.data.data_dir for cfg in ran.configs] == [value.strip("'") for value in wanted]
    assert len({folder.casefold() for folder in ran.folders}) == len(wanted)
    first = dict(zip(wanted, ran.folders, strict=True))
    ran.folders.clear()
    shutil.rmtree(tmp_path / "sweep" / first[wanted[1]])
    assert launch_here(*BASE, f"data.data_dir={','.join(reversed(wanted))},more") == 0
    assert ran.folders == [first[wanted[1]], "data.data_dir=more"]


def test_equal_values_are_one_job_and_that_is_said(launch_here, ran, capsys):
    assert launch_here(*BASE, "optimizer.lr=0.1,0.10,1e-1,0.2", "seed=0,1 ++seed=1") == 2
    assert launch_here(*BASE, "optimizer.lr=0.1,0.10,1e-1,0.2", "seed=0,1", "++seed=1") == 0
    assert ran.folders == ["++seed=1,optimizer.lr=0.1,seed=0", "++seed=1,optimizer.lr=0.2,seed=0"]
    assert "optimizer.lr=0.1,0.10,1e-1,0.2: equal values are one job" in capsys.readouterr().out


def test_a_glob_in_a_study_of_ones_own_finds_the_options_of_its_folder(launch_here, ran, tmp_path):
    for file, content in (
        ("study/all.yaml", "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {model: glob(*)}}}"),
        ("model/tiny.yaml", "defaults: [mlp]\nhidden_sizes: [4]"),
    ):
        (tmp_path / "mine" / file).parent.mkdir(parents=True)
        (tmp_path / "mine" / file).write_text(content)
    for flags in (["--config-dir=mine"], [f"hydra.searchpath=[{tmp_path / 'mine'}]"]):
        ran.folders.clear()
        assert launch_here(*flags, "study=all", "data=synthetic") == 0
        assert ran.folders == ["model=cnn", "model=linear", "model=mlp", "model=tiny"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["optimizer.lr=interval(0.1,1)"], "hydra/sweeper=search"),
        (["optimizer.lr=tag(log,interval(0.1,1))", "hydra/sweeper=basic"], "hydra/sweeper=search"),
        (["loss=glob(zzz*)"], "loss=glob(zzz*): matches nothing, only bce_with_logits, cross_entropy, l1"),
        (["seed=glob(*)"], "seed is no group of files"),
        (["seed=range(3,3)"], "seed=range(3,3): holds no value"),
        (["seed=range(0,3,0)"], "seed=range(0,3,0): "),
        (["sweep.fail_fast=true,false"], "sweep.fail_fast has one for the whole sweep"),
        (["hydra.job.chdir=true,false"], "hydra.job.chdir has one for the whole sweep"),
        (["study=losses,optimizers"], "study has one for the whole sweep"),
        (
            ["seed=0,1", "hydra.sweeper.max_batch_size=0"],
            "hydra.sweeper.max_batch_size=0: must be a whole number from 1",
        ),
        (["seed=0,1", "hydra.sweep.subdir=../${seed}"], "hydra.sweep.subdir=../0: must be a folder below"),
        (["seed=0,1", "hydra.sweep.subdir=."], "hydra.sweep.subdir=.: must be a folder below"),
        (["seed=0,1", "hydra.sweep.subdir=${nothing}"], "hydra.sweep.subdir=${nothing}: "),
        (["seed=0,1", f"hydra.sweep.subdir={'x' * 300}"], "too long"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_a_line_before_anything_is_written(
    launch_here, ran, tmp_path, capsys, arguments, told
):
    assert launch_here("-m", "data=synthetic", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert not any(tmp_path.iterdir())


def test_without_m_a_glob_is_several_values(launch_here, capsys):
    assert launch_here("loss=glob(*)") == 2
    assert "several values; add -m" in capsys.readouterr().err


def test_a_job_keeps_its_number_and_folder_when_a_sweep_is_continued(launch_here, ran, tmp_path):
    command = (*BASE, "hydra.sweep.subdir=${hydra.job.num}")
    ran.failing = {1, 3}
    assert launch_here(*command, "seed=0,1,2,3") == 1
    finished = (tmp_path / "sweep" / "2" / "results.json").stat().st_mtime_ns
    ran.failing = set()
    ran.folders, ran.numbers, ran.configs = [], [], []
    assert launch_here(*command, "seed=9,0,1,2,3") == 0
    assert ran.folders == ["1", "3", "4"]
    assert ran.numbers == [1, 3, 4]
    assert [cfg.seed for cfg in ran.configs] == [1, 3, 9]
    assert (tmp_path / "sweep" / "2" / "results.json").stat().st_mtime_ns == finished


def test_what_jobs_are_called_may_change_when_a_sweep_is_continued(launch_here, ran, tmp_path):
    sweep = ("-m", "hydra.sweep.dir=sweep")
    ran.failing = {1}
    assert launch_here(*sweep, "seed=0,1", "tags=[first]") == 1
    ran.failing = set()
    assert launch_here(*sweep, "seed=0,1,2", "tags=[second]", "note=more of them") == 0
    assert ran.folders == ["seed=0", "seed=1", "seed=1", "seed=2"]
    assert [list(cfg.tags) for cfg in ran.configs] == [["first"], ["first"], ["second"], ["second"]]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("select.metric=accuracy/val,accuracy/train", "select.metric has one for the whole sweep"),
        ("tags=a,b", "tags=a,b: must be a list, as in tags=[baseline,first]"),
        ("optimizer=[sgd,adam],adamw", "must be one option; lists are for callbacks and logger"),
    ],
)
def test_what_all_jobs_share_is_not_swept(launch_here, ran, tmp_path, capsys, override, message):
    assert launch_here("-m", "seed=0,1", override) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_study_may_vary_lists_of_options(launch_here, ran, tmp_path):
    (tmp_path / "conf" / "study").mkdir(parents=True)
    params = "{callbacks: 'default,[default,ema,early_stopping]'}"
    study = f"# @package _global_\nhydra: {{mode: MULTIRUN, sweeper: {{params: {params}}}}}\n"
    (tmp_path / "conf" / "study" / "mine.yaml").write_text(study)
    assert launch_here("--config-dir", "conf", "study=mine", "hydra.sweep.dir=sweep") == 0
    assert [list(cfg.callbacks) for cfg in ran.configs] == [
        ["checkpoint", "overview", "progress_bar"],
        ["checkpoint", "overview", "progress_bar", "ema", "early_stopping"],
    ]


def test_a_value_that_was_fixed_may_vary_when_a_sweep_is_continued(launch_here, ran):
    assert launch_here(*BASE, "optimizer.lr=0.1,0.2", "seed=0") == 0
    ran.folders.clear()
    assert launch_here(*BASE, "seed=0,1", "optimizer.lr=0.20,1e-1") == 0
    assert ran.folders == ["optimizer.lr=0.2,seed=1", "optimizer.lr=0.1,seed=1"]


@pytest.mark.parametrize("plan", ["of phantoms", "damaged"])
def test_jobs_that_a_plan_does_not_know_the_folders_of_are_found(launch_here, ran, tmp_path, plan):
    """Version 0.1 planned folders by what varies although ``hydra.sweep.subdir`` named others."""
    command = (*BASE, "hydra.sweep.subdir=${hydra.job.num}")
    assert launch_here(*command, "seed=4,5") == 0
    file = tmp_path / "sweep" / "sweep.json"
    content = json.loads(file.read_text())
    for job in content["jobs"]:
        job["folder"] = "seed=4" if "seed=4" in job["overrides"] else "seed=5"
    del content["asked"]
    file.write_text(json.dumps(content) if plan == "of phantoms" else "{")
    ran.folders.clear()
    assert launch_here(*command, "seed=4,5,6") == 0
    assert ran.folders == ["2"]
    assert [job.folder for job in summarize([tmp_path / "sweep"], charts=False).table.jobs] == ["0", "1", "2"]


@pytest.fixture
def own_configuration(tmp_path) -> str:
    """A folder of configurations, as it is named from ``tmp_path``; its name has a blank."""
    for name, size in (("tiny", 4), ("small", 8)):
        file = tmp_path / "my conf" / "model" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"defaults: [mlp]\nhidden_sizes: [{size}]")
    return "my conf"


@pytest.mark.parametrize("flag", ["--config-dir={}", "-cd={}", "hydra.searchpath=['{}']"])
def test_printed_commands_work_as_they_are_from_another_folder(
    launch_here, ran, tmp_path, own_configuration, monkeypatch, capsys, flag
):
    ran.failing = {1}
    command = ("-m", flag.format(own_configuration), "data=synthetic", "model=tiny,small", "seed=1,2")
    assert launch_here(*command) == 1
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    hint = capsys.readouterr().out.split("To go on with what is missing: ")[1].splitlines()[0]
    ran.failing = set()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    ran.folders.clear()
    words = shlex.split(hint)
    assert words[:3] == ["python", "-m", "fmnist_lit"]
    assert launch_here(*words[3:]) == 0
    assert ran.folders == ["model=tiny,seed=1", "model=small,seed=1"]
    assert {job.folder for job in read_plan(sweep).jobs} == set(ran.folders) | {
        "model=tiny,seed=2",
        "model=small,seed=2",
    }
    assert "To go on" not in capsys.readouterr().out

    again = summarize([sweep], charts=False).verdict.command
    assert again is not None
    ran.folders.clear()
    assert launch_here(*shlex.split(again)[3:]) == 0
    assert ran.folders == ["seed=1", "seed=2"]
    assert ran.configs[-1].model.hidden_sizes == [4]


@pytest.mark.parametrize("flag", ["--config-dir={}", "hydra.searchpath=['{}']"])
def test_the_hint_of_an_interrupted_run_names_its_configurations(
    launch_here, ran, tmp_path, own_configuration, monkeypatch, flag
):
    assert launch_here(flag.format(own_configuration), "data=synthetic", "model=tiny", "hydra.run.dir=run, of=1") == 0
    (tmp_path / "run, of=1" / "results.json").write_text('{"status": "interrupted"}')
    words = shlex.split(ran.hints[0].removeprefix("Go on with: "))
    assert launch_here(*words[3:]) == 0
    assert ran.configs[1].model.hidden_sizes == [4]
    assert ran.configs[1].run_dir == str(tmp_path / "run, of=1")


def test_a_study_goes_on_by_the_command_that_is_printed(launch_here, ran, capsys):
    ran.failing = {0}
    assert launch_here("study=l1_penalty", "data=synthetic", "regularization.l1=0,0.1") == 1
    hint = capsys.readouterr().out.split("To go on with what is missing: ")[1].splitlines()[0]
    ran.failing, before = set(), ran.folders[:]
    assert launch_here(*shlex.split(hint)[3:]) == 0
    assert ran.folders == before * 2


def test_the_folder_of_a_sweep_may_have_any_name(launch_here, ran, tmp_path):
    (tmp_path / "it's, one=1").mkdir()
    command = ("-m", "data=synthetic", "seed=0,1", "hydra.sweep.dir=it's, one=1")
    assert launch_here(*command) == 0
    results = tmp_path / "it's, one=1" / "seed=1" / "results.json"
    results.write_text('{"status": "interrupted"}')
    assert launch_here(*command) == 0
    assert ran.configs[-1].ckpt_path == str(results.parent / "checkpoints" / "last.ckpt")
