import re
import signal
from itertools import pairwise
from weakref import WeakSet

import pytest
import torch
from interruptions import FORKS, TIMES, TINY, Child, outcome, results
from omegaconf import OmegaConf
from tape import TapeRecorder
from torch.nn import functional as F

from fmnist_lit import captured, stacked
from fmnist_lit.captured import REHEARSALS, CapturedStep
from fmnist_lit.chunked import ChunkedClassifier
from fmnist_lit.processes.signals import stop_request
from fmnist_lit.stacked import laid_in_rows, linear_of_rows, of_rows, sum_of_rows
from fmnist_lit.sweep.search import trials_at_a_time
from fmnist_lit.sweep.stacking import Stacking, stacks

RUN = ("-m", *TINY, "trainer.max_epochs=2", "logger=csv", "~callbacks.progress_bar", "callbacks.overview.graph=false")
STACKED = "hydra/launcher=stacked"
CASES = {
    # the last batch of an epoch is smaller, the last layer narrow, and what diverges is in the same stack
    "sgd": (
        *("optimizer=sgd_momentum", "optimizer.lr=0.1,1e30", "optimizer.momentum=0.5,0.9", "seed=0,1"),
        *("optimizer.weight_decay=1e-3", "data.batch_size=29", "model.hidden_sizes=[33,17]"),
    ),
    # all that draws, keeps a state, or acts between the loss and the step
    "adamw": (
        *("optimizer=adamw", "optimizer.betas=[0.9,0.999],[0.8,0.99]", "model.dropout=0,0.3", "loss=label_smoothing"),
        *("loss.label_smoothing=0.1,0.2", "regularization.l1=1e-4", "trainer.gradient_clip_val=0.1"),
        *("trainer.accumulate_grad_batches=3", "model.activation=gelu", "model.batch_norm=true", "data.batch_size=24"),
    ),
    # whose ends differ, whose weights are averaged, and whose optimisers are of other classes
    "mixed": (
        *("optimizer=muon,adam", "loss=mse", "trainer.max_epochs=1,3", "callbacks=[default,ema]"),
        *("scheduler=one_cycle", "trainer.max_steps=10", "model.activation=tanh"),
    ),
    "schedules": (
        *("scheduler=cosine,step,exponential,warmup_linear,plateau", "optimizer.lr=0.3"),
        *("callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=1", "trainer.max_epochs=3"),
    ),
}


def jobs_of(sweep_dir):
    return sorted(file.parent.name for file in sweep_dir.glob("*/results.json"))


def ended(run_dir):
    """All that a run leaves but for times; what diverged may have no checkpoint."""
    if results(run_dir)["status"] == "diverged":
        return {key: value for key, value in results(run_dir).items() if key not in TIMES}
    return outcome(run_dir)


def require_equal(sweep_dir, other):
    assert jobs_of(sweep_dir) == jobs_of(other)
    for name in jobs_of(sweep_dir):
        assert ended(sweep_dir / name) == ended(other / name), name


@pytest.mark.parametrize("case", CASES)
def test_every_member_ends_in_the_bits_of_the_same_job_alone(launch_here, tmp_path, capsys, case):
    code = launch_here(*RUN, *CASES[case], "hydra.sweep.dir=alone")
    capsys.readouterr()
    assert launch_here(*RUN, *CASES[case], STACKED, "hydra.sweep.dir=together") == code
    screen = capsys.readouterr().out
    number = len(jobs_of(tmp_path / "alone"))
    assert f"stacked: jobs 1–{number} train as one model of {number}\n" in screen
    assert "not stacked" not in screen
    require_equal(tmp_path / "together", tmp_path / "alone")
    for name in jobs_of(tmp_path / "alone"):
        log = (tmp_path / "together" / name / "train.log").read_text()
        assert log.count("128 training") == 1  # its own lines only
        kinds = [tmp_path / kind / name / "checkpoints" / "last.ckpt" for kind in ("alone", "together")]
        if kinds[0].exists():  # a row is not saved with the storage that it is in
            assert kinds[1].stat().st_size == pytest.approx(kinds[0].stat().st_size, rel=0.05)


def test_what_cannot_be_stacked_runs_by_itself_and_is_said(launch_here, tmp_path, capsys):
    words = [word for word in RUN if "hidden_sizes" not in word]
    words += ["trainer.max_epochs=1", "model=linear,cnn", "seed=0,1", "+callbacks.lr.logging_interval=epoch,step"]
    words += ["+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor"]
    assert launch_here(*words, "hydra.sweep.dir=alone") == 0
    capsys.readouterr()
    assert launch_here(*words, STACKED, "hydra.launcher.max_members=3", "hydra.sweep.dir=together") == 0
    screen = capsys.readouterr().out
    assert "stacked: jobs 1–3 train as one model of 3\n" in screen
    assert "not stacked: job 4: no other job has the same model, data and trainer\n" in screen
    assert (
        "not stacked: jobs 5–8: model._target_=fmnist_lit.model.CNN, only fmnist_lit.model.MLP can be stacked" in screen
    )
    # only the job itself knows of its callbacks
    assert screen.count("not stacked: a job that takes single steps trains by itself, while the others wait\n") == 1
    require_equal(tmp_path / "together", tmp_path / "alone")


@FORKS
def test_stopped_sweep_goes_on_with_one_job_more_to_the_same_bits(launch_here, tmp_path, monkeypatch):
    words = (*RUN, "optimizer=adam", "model.dropout=0.2", "seed=0,1", "optimizer.lr=0.01,1e30")
    more = (*words[:-1], "optimizer.lr=0.01,1e30,0.02")  # which begins at another step
    assert launch_here(*more, "hydra.sweep.dir=whole") == 1

    def stops(self, stops_after_step=ChunkedClassifier.stops_after_step):
        if self.global_step == 6 and stop_request.signum is None:  # in the middle of the second epoch
            signal.raise_signal(signal.SIGINT)
        return stops_after_step(self)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkedClassifier, "stops_after_step", stops)
        child = Child(lambda: launch_here(*words, STACKED, "hydra.sweep.dir=sweep"), tmp_path / "screen")
    assert child.wait() == 130
    stopped = [results(tmp_path / "sweep" / name) for name in jobs_of(tmp_path / "sweep")]
    assert sorted(each["status"] for each in stopped) == ["diverged", "diverged", "interrupted", "interrupted"]
    assert {each["stopped_by"] for each in stopped if each["status"] == "interrupted"} == {"SIGINT"}
    assert launch_here(*more, STACKED, "hydra.sweep.dir=sweep") == 1
    require_equal(tmp_path / "sweep", tmp_path / "whole")


def test_fail_fast_stops_the_others_with_a_checkpoint(launch_here, tmp_path):
    words = (*RUN, STACKED, "optimizer.lr=0.1,1e30,0.2", "hydra.sweep.dir=sweep")
    assert launch_here(*words, "sweep.fail_fast=true", "hydra.launcher.max_members=2") == 1
    first, diverged = (results(tmp_path / "sweep" / f"optimizer.lr={lr}") for lr in ("0.1", "1e+30"))
    assert (first["status"], first["stopped_by"], diverged["status"]) == ("interrupted", "SIGTERM", "diverged")
    assert not (tmp_path / "sweep" / "optimizer.lr=0.2").exists()
    assert launch_here(*words) == 1  # only one has diverged
    assert results(tmp_path / "sweep" / "optimizer.lr=0.1")["status"] == "completed"


def fail_at_third_step(monkeypatch, lr):
    """Let SGD with this learning rate raise an error."""

    def step(self, closure=None, step=torch.optim.SGD.step):
        rate = self.param_groups[0]["lr"]  # a tensor in a recording
        if isinstance(rate, float) and rate == lr and self.param_groups[0]["params"][0].isfinite().all():
            steps.append(1)
            if len(steps) == 3:
                raise RuntimeError("no more steps")
        return step(self, closure)

    steps: list[int] = []
    monkeypatch.setattr(torch.optim.SGD, "step", step)


def test_job_that_fails_leaves_the_others_bits_alone(launch_here, tmp_path, monkeypatch):
    words = (*RUN, "optimizer.lr=0.1,0.2,0.3")
    assert launch_here(*words, "hydra.sweep.dir=alone") == 0

    fail_at_third_step(monkeypatch, 0.2)
    assert launch_here(*words, STACKED, "hydra.sweep.dir=together") == 1
    assert results(tmp_path / "together" / "optimizer.lr=0.2")["error"] == "RuntimeError: no more steps"
    for name in ("optimizer.lr=0.1", "optimizer.lr=0.3"):
        assert outcome(tmp_path / "together" / name) == outcome(tmp_path / "alone" / name)


def test_all_layers_as_one_product_come_to_the_same_but_for_rounding(launch_here, tmp_path, monkeypatch):
    words = (*RUN, "seed=0,1", "optimizer.lr=0.1", "model.hidden_sizes=[32,16]")
    assert launch_here(*words, "hydra.sweep.dir=alone") == 0
    together = []
    monkeypatch.setattr(stacked, "gives_the_same_bits", lambda *layout: together.append(layout) or True)  # as on a GPU
    assert launch_here(*words, STACKED, "hydra.sweep.dir=together") == 0
    assert len(together) == 2 * 4 * (3 + 3 + 2 + 3)  # epochs, batches; forward, weights, inputs but the first's, biases
    for name in jobs_of(tmp_path / "alone"):
        one, other = (results(tmp_path / kind / name) for kind in ("alone", "together"))
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)
        assert other["test_loss"] == pytest.approx(one["test_loss"], rel=1e-5)


# The step of a whole stack from a CUDA graph, on a tape (tape.py), with rates that float32 does not round


GRAPH = "trainer.cuda_graph=true"
SEVENTEEN = "data.batch_size=17"  # seven batches an epoch, and a smaller one


@pytest.fixture
def replays(monkeypatch) -> list[tuple[int, ...]]:
    """The shapes of the labels of replayed steps."""
    shapes = []

    def fill_in(self, images, labels, fill_in=CapturedStep.fill_in):
        shapes.append(tuple(labels.shape))
        fill_in(self, images, labels)

    monkeypatch.setitem(captured.RECORDERS, "cpu", TapeRecorder)
    monkeypatch.setattr(CapturedStep, "fill_in", fill_in)
    return shapes


def said(sweep_dir):
    """By job, what it said of CUDA graphs."""
    logs = {name: (sweep_dir / name / "train.log").read_text() for name in jobs_of(sweep_dir)}
    return {name: re.findall(r"trainer\.cuda_graph: (.*)", log) for name, log in logs.items()}


def test_replayed_steps_of_a_stack_end_in_the_bits_of_each_job_alone(launch_here, tmp_path, capsys, replays):
    words = (
        *(*RUN, "optimizer=sgd_nesterov,adam", "optimizer.lr=0.0078125", "optimizer.weight_decay=0.125", SEVENTEEN),
        *("scheduler=step", "scheduler.interval=step", "scheduler.step_size=3,5", "scheduler.gamma=0.5"),
        *("model.batch_norm=true", "loss=label_smoothing", "regularization.l1=1e-4", "trainer.gradient_clip_val=0.5"),
    )
    assert launch_here(*words, "hydra.sweep.dir=alone") == 0
    capsys.readouterr()
    assert launch_here(*words, STACKED, GRAPH, "hydra.sweep.dir=together") == 0
    require_equal(tmp_path / "together", tmp_path / "alone")
    assert replays == [(4, 17)] * (2 * 7 - REHEARSALS - 1)
    line = "steps of 4 × 17 images are replayed"
    assert list(said(tmp_path / "together").values()) == [[line]] * 4
    assert capsys.readouterr().out.count(line) == 1


def test_stack_that_shrinks_is_recorded_again(launch_here, tmp_path, monkeypatch, replays):
    """Two diverge, and one ends in the middle of the second epoch."""
    kept: WeakSet[CapturedStep] = WeakSet()
    record = CapturedStep.record
    monkeypatch.setattr(CapturedStep, "record", lambda self, *batch: kept.add(self) or record(self, *batch))
    words = (*RUN, "data.batch_size=8", "optimizer.lr=0.125,1e30", "trainer.max_steps=24,-1")
    assert launch_here(*words, "hydra.sweep.dir=alone") == 1
    assert launch_here(*words, STACKED, GRAPH, "hydra.sweep.dir=together") == 1
    require_equal(tmp_path / "together", tmp_path / "alone")
    assert replays == [(4, 8)] * 12 + [(2, 8)] * 4 + [(1, 8)] * 4
    assert not kept  # and none of the memory that a graph holds


def test_job_that_fails_before_the_recording_leaves_the_others_bits_alone(launch_here, tmp_path, monkeypatch, replays):
    words = (*RUN, SEVENTEEN, "trainer.max_epochs=1", "optimizer.lr=0.125,0.25,0.5")
    assert launch_here(*words, "hydra.sweep.dir=alone") == 0
    fail_at_third_step(monkeypatch, 0.25)
    assert launch_here(*words, STACKED, GRAPH, "hydra.sweep.dir=together") == 1
    assert results(tmp_path / "together" / "optimizer.lr=0.25")["error"] == "RuntimeError: no more steps"
    assert replays == []
    for name in ("optimizer.lr=0.125", "optimizer.lr=0.5"):
        assert outcome(tmp_path / "together" / name) == outcome(tmp_path / "alone" / name)


WAITS = "eager steps, as long as a job that cannot be recorded is in the stack"
DRAWS = "eager steps, the dropout of each job in a stack has random numbers of its own"
NEEDS = "eager steps, MuonWithAdamW needs its learning rate in Python"
CHECKS = "eager steps, they cannot be recorded: RuntimeError: aten._local_scalar_dense.default is not permitted when"


@pytest.mark.parametrize(
    ("overrides", "reasons"),
    [
        (("model.dropout=0,0.3", "optimizer=sgd,muon"), [[WAITS], [NEEDS, WAITS], [DRAWS, WAITS], [NEEDS, WAITS]]),
        # mse's check of labels, on CPUs only, is no failure of the job
        (("loss=mse,cross_entropy",), [[f"{CHECKS} a stream is capturing"]] * 2),
    ],
    ids=["known before", "seen in the recording"],
)
def test_stack_that_cannot_be_replayed_trains_eagerly_and_says_why(launch_here, tmp_path, replays, overrides, reasons):
    words = (*RUN, "data.batch_size=16", "trainer.max_epochs=1", *overrides)
    assert launch_here(*words, STACKED, GRAPH, "hydra.sweep.dir=sweep") == 0
    assert sorted(said(tmp_path / "sweep").values()) == sorted(reasons)
    assert replays == []


# Products, rows, and which jobs are put together


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(64, 784, 32), (7, 33, 17), (1, 10, 10), (24, 100, 10)])
def test_products_of_rows_have_the_bits_of_each(rows, inputs, outputs):
    generator = torch.Generator().manual_seed(1)
    layers = [torch.nn.Linear(inputs, outputs) for _ in range(3)]
    images = torch.randn(3, rows, inputs, generator=generator)
    gradient = torch.randn(3, rows, outputs, generator=generator)
    expected = []
    for layer, own, back in zip(layers, images, gradient, strict=True):
        own = own.clone().requires_grad_()
        logits = layer(own)
        logits.backward(back.clone())
        expected.append((logits.detach(), own.grad, layer.weight.grad, layer.bias.grad))
    weight, bias = laid_in_rows([layer.weight for layer in layers]), laid_in_rows([layer.bias for layer in layers])
    found = (
        of_rows(linear_of_rows, F.linear, images, weight, bias),
        of_rows(torch.bmm, torch.mm, gradient, weight),
        of_rows(torch.bmm, torch.mm, gradient.mT, images),
        of_rows(sum_of_rows, sum_of_rows, gradient),
    )
    for ours, theirs in zip(found, zip(*expected, strict=True), strict=True):
        assert torch.equal(ours, torch.stack(theirs))


def test_parameters_stay_in_their_rows_until_others_leave():
    parameters = [torch.nn.Parameter(torch.full((3, 5), float(number))) for number in range(4)]
    rows = laid_in_rows(parameters)
    assert laid_in_rows(parameters).data_ptr() == rows.data_ptr()
    with torch.no_grad():
        parameters[2].add_(10)
    assert rows[:, 0, 0].tolist() == [0, 1, 12, 3]
    assert [(b.data_ptr() - a.data_ptr()) % 64 for a, b in pairwise(parameters)] == [0, 0, 0]
    left = laid_in_rows([parameters[0], parameters[2], parameters[3]])
    assert left.data_ptr() != rows.data_ptr()
    assert left[:, 0, 0].tolist() == [0, 12, 3]
    assert parameters[1][0, 0] == 1


def job(**changes):
    cfg = OmegaConf.create(
        {
            "model": {"_target_": "fmnist_lit.model.MLP", "hidden_sizes": [8], "dropout": 0.0},
            "data": {"batch_size": 64},
            "trainer": {"precision": "32-true", "devices": 1, "steps_per_batch": "auto", "max_epochs": 3},
            "num_threads": 1,
            "debug": None,
            "logger": {"csv": {"_target_": "fmnist_lit.loggers.CSVLogger"}},
            "seed": 0,
        }
    )
    for key, value in changes.items():
        OmegaConf.update(cfg, key.replace("__", "."), value)
    return cfg


def test_jobs_are_put_together_by_model_data_and_trainer():
    jobs = [
        *(job(), job(data__batch_size=32), job(seed=1), job(model__dropout=0.5, trainer__max_epochs=9)),
        *(job(trainer__precision="bf16-mixed"), job(trainer__devices=2), job(data__batch_size=32), job(debug="nan")),
        *(job(logger={"x": {"_target_": "fmnist_lit.loggers.WandbLogger"}}), job(model__hidden_sizes=[9]), job()),
        *(job(data__batch_size="${seed}", seed=64), job(data__batch_size="${nowhere}")),
    ]
    found = stacks(jobs, max_members=3)
    assert found.stacks == [[0, 2, 3], [1, 6], [4], [5], [7], [8], [9], [10, 11], [12]]
    assert found.told([number + 10 for number in range(13)]) == [
        "stacked: jobs 11, 13–14 train as one model of 3",
        "stacked: jobs 12, 17 train as one model of 2",
        "stacked: jobs 21–22 train as one model of 2",
        "not stacked: job 15: trainer.precision=bf16-mixed, only 32-true can be stacked",
        "not stacked: job 16: trainer.devices=2, only runs on one device can be stacked",
        "not stacked: job 18: debug=nan, which is for looking at single steps",
        "not stacked: job 19: fmnist_lit.loggers.WandbLogger follows one run a process",
        "not stacked: job 20: no other job has the same model, data and trainer",
        "not stacked: job 23: not all of it is known before it runs: Interpolation key 'nowhere' not found",
    ]
    assert stacks(jobs[:1], None) == Stacking([[0]], {0: "no other job has the same model, data and trainer"})


def test_search_samples_as_many_jobs_at_a_time_as_a_stack_takes():
    sweeper = {"n_jobs": None, "sampler": "tpe", "pruner": "none", "n_trials": 20}
    launcher = {"_target_": "hydra_plugins.fmnist_lit_sweeper.stacked_launcher.StackedLauncher", "max_members": 7}
    assert trials_at_a_time(OmegaConf.create({"sweeper": sweeper, "launcher": launcher})) == 7


def test_limit_of_members_is_checked(launch_here, capsys):
    assert launch_here(*RUN, STACKED, "seed=0,1", "hydra.launcher.max_members=0") == 2
    assert "hydra.launcher.max_members=0: must be a whole number from 1, or null" in capsys.readouterr().err
