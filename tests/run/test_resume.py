import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import options
from interruptions import (
    ADAM,
    HARDEST,
    RUN,
    TINY,
    composed,
    content,
    fingerprint,
    interrupting,
    outcome,
    points,
    results,
    rows,
    signal_at,
    tree,
)
from omegaconf import OmegaConf

import fmnist_lit.data
from fmnist_lit.classifier import Classifier
from fmnist_lit.command_line.job import run_job
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.run.resume import own_data

# What two runs are compared by


# Stopping and going on


@pytest.fixture
def start(configure, tmp_path) -> Callable[..., Path]:
    """Run to the end, or to a signal in step ``stop``; ``resume`` goes on with what there is."""

    def go(name: str, *overrides: str, stop: int | None = None, resume: bool = False) -> Path:
        folder = tmp_path / name
        torch.manual_seed(99)  # another process would not have the state that the last run left either
        last = folder / "checkpoints" / "last.ckpt"
        cfg = composed(configure, folder, *RUN, *overrides, ckpt_path=last if resume else None)
        if stop is None:
            run_job(cfg)
            assert results(folder)["status"] == "completed", results(folder)
        else:
            with signal_at(stop), pytest.raises(SystemExit, match="143"):
                run_job(cfg)
            assert load_checkpoint(folder / "checkpoints" / "last.ckpt")["global_step"] == stop
        return folder

    return go


CHOICES = [(optimizer, "one_cycle") for optimizer in options("optimizer")]
CHOICES += [("sgd_momentum", scheduler) for scheduler in options("scheduler") if scheduler != "one_cycle"]
CHOICES += [("adam", "plateau"), ("muon", "plateau"), ("rmsprop", "exponential")]


@pytest.mark.parametrize(("optimizer", "scheduler"), CHOICES)
def test_every_optimizer_and_scheduler_resumes_to_the_same_bits(start, optimizer, scheduler):
    overrides = ["trainer.max_epochs=2", f"optimizer={optimizer}", f"scheduler={scheduler}"]
    if scheduler == "plateau":
        overrides.append("scheduler.patience=0")
    if scheduler == "step":
        overrides.append("scheduler.step_size=1")
    whole = start("whole", *overrides)
    parts = start("parts", *overrides, stop=1)
    assert fingerprint(parts) != fingerprint(whole)
    start("parts", *overrides, stop=13, resume=True)
    start("parts", *overrides, resume=True)
    assert outcome(parts) == outcome(whole)


@pytest.mark.parametrize("stop", [5, 8, 19])
def test_averaged_and_augmented_run_resumes_to_the_same_bits(start, stop):
    overrides = [
        *("callbacks=ema", "data.augmentation.flip=true", "data.augmentation.shift=1", "flip_average=true"),
        *("regularization.decay_biases=false", "optimizer=muon", "scheduler=warmup_linear"),
    ]
    whole = start("whole", *overrides)
    parts = start("parts", *overrides, stop=stop)
    start("parts", *overrides, resume=True)
    assert "averaging_state" in load_checkpoint(parts / "checkpoints" / "last.ckpt")
    assert outcome(parts) == outcome(whole)


@pytest.mark.parametrize("stop", [1, 4, 8, 9, 24])
def test_stop_in_any_step_resumes_to_the_same_bits(start, stop):
    whole = start("whole", *HARDEST, "logger=default")
    parts = start("parts", *HARDEST, "logger=default", stop=stop)
    start("parts", *HARDEST, "logger=default", resume=True)
    assert outcome(parts) == outcome(whole)
    assert points(parts) == points(whole)


def test_epochs_before_the_stop_are_not_repeated(start, monkeypatch):
    """Their rows are kept with the seconds they took; the rest of the epoch that was stopped is all that is left."""
    parts = start("parts", stop=19)
    before = (parts / "metrics.csv").read_bytes()
    seen = []
    step = Classifier.training_step
    monkeypatch.setattr(
        Classifier, "training_step", lambda self, chunk, i: seen.append(len(chunk[1])) or step(self, chunk, i)
    )
    start("parts", resume=True)
    assert (parts / "metrics.csv").read_bytes().startswith(before)
    assert sum(seen) == (24 - 19) * 32


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed", "bf16-true"])
def test_stop_resumes_to_the_same_bits_in_any_precision(start, precision):
    """Lightning restores the weights before it makes them double."""
    overrides = (*HARDEST, f"trainer.precision={precision}")
    whole = start("whole", *overrides)
    parts = start("parts", *overrides, stop=11)
    start("parts", *overrides, resume=True)
    assert outcome(parts) == outcome(whole)


@pytest.mark.parametrize(("accumulate", "stop"), [(2, 3), (2, 4), (3, 2), (3, 3)])
def test_stop_resumes_to_the_same_bits_where_batches_are_accumulated(start, accumulate, stop):
    overrides = (*HARDEST, f"trainer.accumulate_grad_batches={accumulate}")
    whole = start("whole", *overrides)
    parts = start("parts", *overrides, stop=stop)
    start("parts", *overrides, resume=True)
    assert outcome(parts) == outcome(whole)


@pytest.mark.parametrize(("before", "after"), [(1, 50), (50, 1), (3, 5)])
def test_chunk_may_change_on_resuming(start, before, after):
    whole = start("whole", *HARDEST)
    parts = start("parts", *HARDEST, f"trainer.steps_per_batch={before}", stop=12)
    start("parts", *HARDEST, f"trainer.steps_per_batch={after}", resume=True)
    assert outcome(parts) == outcome(whole)


@pytest.mark.parametrize("every", [1, 3, 11])
def test_checkpoints_in_mid_epoch_change_no_bit(start, every):
    whole = start("whole", *HARDEST)
    often = start("often", *HARDEST, f"trainer.checkpoint_every_n_steps={every}")
    assert outcome(often) == outcome(whole)


@pytest.mark.parametrize(
    "overrides",
    [["data.val_size=0"], ["data.val_size=0", "evaluate_each_epoch=[test]"], ["evaluate_each_epoch=[val,test]"]],
    ids=" ".join,
)
@pytest.mark.parametrize("stop", [11, 24])
def test_stop_resumes_to_the_same_figures_whatever_is_evaluated(start, overrides, stop):
    whole = start("whole", *overrides, "logger=default")
    parts = start("parts", *overrides, "logger=default", stop=stop)
    start("parts", *overrides, "logger=default", resume=True)
    assert outcome(parts) == outcome(whole)
    assert points(parts) == points(whole)


@pytest.mark.parametrize(
    ("hook", "val_size"),
    [
        ("on_validation_epoch_start", 64),
        ("validation_step", 64),
        ("on_validation_epoch_end", 64),
        ("on_test_epoch_start", 64),
        ("test_step", 64),
        ("on_test_epoch_start", 0),
    ],
)
def test_stop_between_epochs_and_in_the_test_resumes_to_the_same_figures(configure, start, monkeypatch, hook, val_size):
    overrides = [*HARDEST, f"data.val_size={val_size}", "logger=default"]
    whole = start("whole", *overrides)
    cfg = configure(*RUN, *overrides, run_dir="parts")
    with monkeypatch.context() as patch:
        interrupting(patch, Classifier, hook)
        with pytest.raises(SystemExit, match="143"):
            run_job(cfg)
    parts = start("parts", *overrides, resume=True)
    assert outcome(parts) == outcome(whole)
    assert points(parts) == points(whole)


def test_best_epoch_of_before_the_stop_is_the_one_that_is_tested(start):
    spoiling = ("optimizer=adam", "scheduler=exponential", "scheduler.gamma=20", "data.batch_size=16")
    whole = start("whole", *spoiling)
    assert results(whole)["best_epoch"] < 3
    parts = start("parts", *spoiling, stop=40)
    start("parts", *spoiling, resume=True)
    assert outcome(parts) == outcome(whole)


def test_completed_run_goes_on_to_a_higher_number_of_epochs(start):
    whole = start("whole", "optimizer=adam", "trainer.max_epochs=4")
    parts = start("parts", "optimizer=adam", "trainer.max_epochs=2")
    start("parts", "optimizer=adam", "trainer.max_epochs=4", resume=True)
    assert outcome(parts) == outcome(whole)


def test_best_checkpoint_of_an_epoch_that_is_done_again_is_not_taken_for_an_earlier_one(start):
    spoiling = ("optimizer=adam", "scheduler=exponential", "scheduler.gamma=1e4", "data.batch_size=16")
    parts = start("parts", *spoiling, stop=20)  # in the second epoch, the first is the best so far
    last, best = parts / "checkpoints" / "last.ckpt", parts / "checkpoints" / "best.ckpt"
    saved = load_checkpoint(last)
    assert saved["best"]["epoch"] == 1
    later = {**load_checkpoint(best), "epoch": 2}
    torch.save(later, best)
    start("parts", *spoiling, resume=True)
    written = results(parts)
    assert written["best_epoch"] != 1
    assert load_checkpoint(parts / written["checkpoint"])["epoch"] + 1 == written["best_epoch"]


def test_order_of_the_resumed_epoch_is_not_that_of_the_first(start, monkeypatch):
    """What Lightning alone does."""
    seen = []
    order = fmnist_lit.data.batches.epoch_order
    monkeypatch.setattr(fmnist_lit.data.batches, "epoch_order", lambda *args: seen.append(args) or order(*args))
    start("parts", stop=16)
    start("parts", resume=True)
    assert [epoch for _, _, epoch in seen] == [0, 1, 2]


# By command line


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """Where run folders that several tests start from are kept."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def folder(kept, launch_here, tmp_path, capsys) -> Callable[..., Path]:
    """A copy in ``tmp_path`` of the run folder that a command line leaves; stopped in step ``stop`` if there is one."""

    def make(name: str, *arguments: str, stop: int | None = None) -> Path:
        if not (kept / name).exists():
            with signal_at(stop or -1):
                assert launch_here(*arguments, f"hydra.run.dir={name}") == (143 if stop else 0)
            (tmp_path / name).rename(kept / name)
        shutil.copytree(kept / name, tmp_path / name)
        capsys.readouterr()
        return tmp_path / name

    return make


@pytest.fixture
def finished(folder) -> Path:
    """The folder of a run of three epochs."""
    return folder("done", *TINY)


@pytest.fixture
def stopped(folder) -> Path:
    """The folder of a run that was stopped in the sixth of twelve steps."""
    return folder("stopped", *ADAM, stop=6)


@pytest.fixture
def uninterrupted(folder) -> Path:
    """The folder of the same run as ``stopped``, to the end."""
    return folder("whole", *ADAM)


@pytest.mark.parametrize(
    ("ckpt_path", "fragment"),
    [("nowhere", "no such file or run folder"), ("nowhere/last.ckpt", "no such file"), ("empty", "checkpoints/last")],
)
def test_nothing_to_resume_from_is_an_error(launch_here, tmp_path, capsys, ckpt_path, fragment):
    (tmp_path / "empty").mkdir()
    assert launch_here(*TINY, f"ckpt_path={ckpt_path}") == 2
    message = capsys.readouterr().err
    assert f"ckpt_path={ckpt_path}: nothing to resume from" in message
    assert fragment in message
    assert len(message.splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("changed", "key", "now", "before"),
    [
        ("optimizer.lr=0.5", "optimizer.lr", "0.5", "0.001"),
        ("model.hidden_sizes=[16]", "model.hidden_sizes", "[16]", "[8]"),
        ("data.batch_size=16", "data.batch_size", "16", "32"),
        ("data.train_size=96", "data.train_size", "96", "128"),
        ("data.shuffle=false", "data.shuffle", "alse", "rue"),
        ("data.synthetic_seed=5", "data.synthetic_seed", "5", "0"),
        ("seed=3", "seed", "3", "0"),
        ("optimizer=adam", "optimizer._target_", "torch.optim.Adam", "torch.optim.SGD"),
        ("loss=mse", "loss._target_", "OneHotLoss", "CrossEntropyLoss"),
        ("model.dropout=0.25", "model.dropout", "0.25", "0.0"),
        ("regularization.l1=0.125", "regularization.l1", "0.125", "0.0"),
        ("trainer.accumulate_grad_batches=2", "trainer.accumulate_grad_batches", "2", "1"),
        ("trainer.gradient_clip_val=0.5", "trainer.gradient_clip_val", "0.5", "None"),
        ("trainer.precision=bf16-mixed", "trainer.precision", "bf16-mixed", "32-true"),
        ("evaluate_each_epoch=[val,test]", "evaluate_each_epoch", "test", "val"),
        ("select.metric=accuracy/train", "select.metric", "accuracy/train", "accuracy/val"),
    ],
)
def test_changed_value_is_refused_with_both_values(launch_here, finished, capsys, changed, key, now, before):
    files = tree(finished)
    assert launch_here(changed, "ckpt_path=done", "trainer.max_epochs=4") == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) == 1
    told, kept = message.split(": the run in")
    assert key in told
    assert now in told
    assert before in kept
    assert tree(finished) == files


@pytest.mark.parametrize("is_here", [True, False])
def test_a_run_from_another_machine_takes_the_data_that_this_one_says_it_has(tmp_path, monkeypatch, is_here):
    """As conf/local/default.yaml does."""
    had = {"data": {"data_dir": str(tmp_path / "elsewhere")}, "dataset": "fashion_mnist"}
    monkeypatch.setattr("fmnist_lit.run.checkpoint.load_checkpoint", lambda path: {"hyper_parameters": had})
    data = OmegaConf.create({"source": "fashion_mnist", "data_dir": str(tmp_path / "here")})
    if is_here:
        (tmp_path / "here").mkdir()
    expected = [] if is_here else [f"data.data_dir='{tmp_path / 'elsewhere'}'"]
    assert own_data(tmp_path / "run", tmp_path / "last.ckpt", data, set()) == expected


def test_other_data_set_is_refused_with_both_names(launch_here, finished, tiny_idx, tmp_path, capsys, caplog):
    tiny_idx.write(tmp_path / "data")
    before = content(finished)
    where = ("data.source=fashion_mnist", f"data.data_dir={tmp_path / 'data'}")
    assert launch_here("ckpt_path=done", "trainer.max_epochs=4", *where) == 2
    message = "".join(capsys.readouterr()) + caplog.text
    assert "fashion_mnist" in message
    assert "synthetic" in message
    assert content(finished) == before
    assert launch_here("ckpt_path=done", "trainer.max_epochs=4") == 0  # what was refused is not remembered


@pytest.mark.parametrize(
    "arguments",
    [
        ["ckpt_path=done"],
        ["ckpt_path=done/checkpoints/last.ckpt"],
        ["ckpt_path=done/checkpoints/best.ckpt"],
        ["ckpt_path=done/"],
        ["ckpt_path=done", "trainer.max_epochs=2"],
        ["ckpt_path=done", "optimizer.lr=0.001"],
        ["ckpt_path=done", "trainer.checkpoint_every_n_steps=1"],
    ],
    ids=" ".join,
)
def test_finished_run_is_said_to_be_complete_and_left_alone(launch_here, finished, tmp_path, capsys, arguments):
    files = tree(tmp_path)
    assert launch_here(*arguments) == 0
    assert "complete" in capsys.readouterr().out
    assert tree(tmp_path) == files


def test_run_that_a_callback_ended_early_is_complete_too(launch_here, tmp_path, capsys):
    stopping = ("_target_=lightning.pytorch.callbacks.EarlyStopping", "monitor=loss/val", "mode=max", "patience=1")
    assert launch_here(*TINY, *(f"+callbacks.stop.{option}" for option in stopping), "hydra.run.dir=here") == 0
    assert results(tmp_path / "here")["epochs"] == 2
    files = tree(tmp_path)
    assert launch_here("ckpt_path=here") == 0
    assert "complete" in capsys.readouterr().out
    assert tree(tmp_path) == files
    assert launch_here("ckpt_path=here", "trainer.max_epochs=4") == 0
    assert results(tmp_path / "here")["epochs"] == 3  # and there it ends early again


def test_finished_run_goes_on_to_a_higher_number_of_epochs(launch_here, finished, tmp_path):
    assert launch_here("ckpt_path=done", "trainer.max_epochs=5") == 0
    assert launch_here(*TINY, "trainer.max_epochs=5", "hydra.run.dir=whole") == 0
    assert outcome(finished) == outcome(tmp_path / "whole")
    curves, whole = points(finished), points(tmp_path / "whole")
    assert {tag: curves[tag] for tag in curves if "test" not in tag} == {
        tag: whole[tag] for tag in whole if "test" not in tag
    }


def test_run_stopped_by_max_steps_goes_on_to_a_higher_one(launch_here, tmp_path):
    assert launch_here(*TINY, "trainer.max_steps=5", "hydra.run.dir=here") == 0
    assert launch_here("ckpt_path=here", "trainer.max_steps=-1") == 0
    assert launch_here(*TINY, "hydra.run.dir=whole") == 0
    assert outcome(tmp_path / "here") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("scheduler", ["one_cycle", "cosine", "warmup_linear", "warmup_polynomial"])
def test_schedule_laid_out_over_the_run_keeps_its_length(launch_here, tmp_path, capsys, scheduler):
    assert launch_here(*TINY, f"scheduler={scheduler}", "trainer.max_epochs=2", "hydra.run.dir=here") == 0
    files = tree(tmp_path)
    capsys.readouterr()
    assert launch_here("ckpt_path=here", "trainer.max_epochs=7") == 2
    message = capsys.readouterr().err
    assert "trainer.max_epochs=7" in message
    assert "laid out for 2" in message
    assert tree(tmp_path) == files


@pytest.mark.parametrize("target", ["stopped", "stopped/checkpoints/last.ckpt", "{}/stopped"])
def test_run_folder_and_checkpoint_are_both_resumed_in_place(launch_here, stopped, uninterrupted, tmp_path, target):
    assert launch_here(f"ckpt_path={target.format(tmp_path)}") == 0
    assert outcome(stopped) == outcome(uninterrupted)
    assert points(stopped) == points(uninterrupted)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["stopped", "whole"]
    assert not list(stopped.rglob("*.tmp"))


def test_resumed_run_can_be_resumed_again(launch_here, stopped, uninterrupted):
    for step in (7, 11):
        with signal_at(step):
            assert launch_here("ckpt_path=stopped") == 143
        assert results(stopped)["status"] == "interrupted"
    assert launch_here("ckpt_path=stopped") == 0
    assert outcome(stopped) == outcome(uninterrupted)
    assert points(stopped) == points(uninterrupted)


NAMES = ["with space", "with'quote", "größe,lr=[1]", "2026-11-25_seed=0,lr=1e-3_a1b2c3", "2026"]


@pytest.mark.parametrize("quote", [False, True], ids=["as typed", "quoted for Hydra"])
@pytest.mark.parametrize("name", NAMES)
def test_run_folder_of_any_name_is_resumed(launch_here, finished, tmp_path, capsys, name, quote):
    """A folder may be moved and renamed between."""
    finished.rename(tmp_path / name)
    escaped = name.replace("'", "\\'")
    assert launch_here(f"ckpt_path='{escaped}'" if quote else f"ckpt_path={name}") == 0
    assert f"{tmp_path / name} is complete" in capsys.readouterr().out


def test_advice_after_an_interruption_can_be_followed(launch_here, uninterrupted, tmp_path, capsys):
    with signal_at(6):
        assert launch_here(*ADAM, "hydra.run.dir=it's,lr=1 [a]") == 143
    advice = next(line for line in capsys.readouterr().out.splitlines() if "Go on with" in line)
    words = shlex.split(advice.split("Go on with: ")[1])
    assert words[:3] == ["python", "-m", "fmnist_lit"]
    assert launch_here(*words[3:]) == 0
    assert outcome(tmp_path / "it's,lr=1 [a]") == outcome(uninterrupted)


def test_named_folder_gets_what_is_resumed_and_the_old_one_is_left_alone(launch_here, folder, tmp_path):
    spoiling = (*TINY, "optimizer=adam", "scheduler=exponential", "scheduler.gamma=1000")
    old, whole = folder("spoiled", *spoiling, stop=10), folder("spoiled whole", *spoiling)
    assert results(whole)["best_epoch"] < 3
    files = tree(old)
    assert launch_here(f"ckpt_path={old}", "hydra.run.dir=new") == 0
    assert tree(old) == files
    new = outcome(tmp_path / "new")
    assert new.pop("rows") == rows(whole)[2:]
    assert new == {key: value for key, value in outcome(whole).items() if key != "rows"}
    assert launch_here("ckpt_path=new", "trainer.max_epochs=4") == 0  # a run folder like any other


COPIED = (*ADAM, "hydra.run.dir=new", "ckpt_path=copy.ckpt")


def test_checkpoint_outside_its_run_folder_goes_on_in_a_new_one(launch_here, stopped, uninterrupted, tmp_path):
    shutil.copy(stopped / "checkpoints" / "last.ckpt", tmp_path / "copy.ckpt")
    files = tree(stopped)
    assert launch_here(*COPIED) == 0
    assert fingerprint(tmp_path / "new") == fingerprint(uninterrupted)
    assert rows(tmp_path / "new") == rows(uninterrupted)[1:]
    assert tree(stopped) == files


def test_checkpoint_outside_its_run_folder_is_held_to_its_configuration(launch_here, stopped, tmp_path, capsys, caplog):
    shutil.copy(stopped / "checkpoints" / "last.ckpt", tmp_path / "copy.ckpt")
    assert launch_here(*COPIED, "optimizer.lr=0.5") != 0
    message = "".join(capsys.readouterr()) + caplog.text
    assert "optimizer.lr=0.5" in message
    assert "0.001" in message
    assert not (tmp_path / "new" / "checkpoints").exists()


def test_checkpoint_without_its_best_one_still_ends_in_a_result(launch_here, tmp_path):
    """The best epoch was before the copy; its weights are not in the new folder."""
    spoiling = (*TINY, "optimizer=adam", "scheduler=exponential", "scheduler.gamma=1000")
    assert launch_here(*spoiling, "hydra.run.dir=old") == 0
    assert results(tmp_path / "old")["best_epoch"] < 3
    shutil.copy(tmp_path / "old" / "checkpoints" / "last.ckpt", tmp_path / "copy.ckpt")
    assert launch_here(*spoiling, "trainer.max_epochs=4", "ckpt_path=copy.ckpt", "hydra.run.dir=new") == 0
    written = results(tmp_path / "new")
    tested = tmp_path / "new" / written["checkpoint"]
    assert tested.is_file()
    if written["best_epoch"] is not None:
        assert load_checkpoint(tested)["best"]["epoch"] == written["best_epoch"]


def test_learning_rate_in_the_checkpoint_is_not_overridden_silently(launch_here, finished, tmp_path):
    """The mistake this is about: the optimiser's state brings its own learning rate."""
    assert launch_here("ckpt_path=done", "trainer.max_epochs=4", "optimizer.lr=0.001") == 0
    assert {row["lr"] for row in rows(finished)} == {"0.001"}


def test_sweep_does_not_resume_one_run_several_times(launch_here, finished, capsys):
    files = tree(finished)
    assert launch_here("-m", "ckpt_path=done", "seed=0,1") == 2
    assert "ckpt_path" in capsys.readouterr().err
    assert tree(finished) == files


# The run's own data, from another folder


@pytest.fixture
def moved(launch_here, tiny_idx, tmp_path, monkeypatch) -> Callable[..., Path]:
    """Run in ``a``, on the tiny data in ``a/data``, and go on in ``b``, where there are none; the folder ``a/run``."""

    def go(first: tuple[str, ...], then: tuple[str, ...] = (), epochs: int = 2) -> Path:
        for name in ("a", "b"):
            (tmp_path / name).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / "a")
        assert launch_here(*ON_TINY_DATA, *first, "hydra.run.dir=run", "trainer.max_epochs=1") == 0
        monkeypatch.delenv("FMNIST_DATA_DIR", raising=False)
        monkeypatch.chdir(tmp_path / "b")
        assert launch_here("ckpt_path=../a/run", f"trainer.max_epochs={epochs}", *then) == 0
        assert results(tmp_path / "a" / "run")["epochs"] == epochs
        return tmp_path / "a" / "run"

    return go


ON_TINY_DATA = (*TINY, "data=auto", "data.val_size=10", "data.train_size=null", "data.test_size=null")


@pytest.mark.parametrize("first", [(), ("data.data_dir=data",), ("data.data_dir=../a/data/",), ("data=fashion_mnist",)])
def test_run_goes_on_with_its_own_data_from_another_folder(moved, tiny_idx, tmp_path, first):
    tiny_idx.write(tmp_path / "a" / "data")
    run = moved(first)
    assert results(run)["dataset"] == "fashion_mnist"
    assert list((tmp_path / "b").iterdir()) == []


def test_run_goes_on_with_the_data_that_the_environment_named(moved, tiny_idx, tmp_path, monkeypatch):
    tiny_idx.write(tmp_path / "elsewhere")
    monkeypatch.setenv("FMNIST_DATA_DIR", str(tmp_path / "elsewhere"))
    assert results(moved(()))["dataset"] == "fashion_mnist"
    assert list((tmp_path / "b").iterdir()) == []


def test_data_named_now_count_and_are_remembered_for_the_next_time(moved, launch_here, tiny_idx, tmp_path, monkeypatch):
    tiny_idx.write(tmp_path / "a" / "data")
    tiny_idx.write(tmp_path / "b" / "moved")
    run = moved((), ("data.data_dir=moved",))
    (tmp_path / "a" / "data").rename(tmp_path / "gone")
    monkeypatch.chdir(tmp_path)
    assert launch_here("ckpt_path=a/run", "trainer.max_epochs=3") == 0
    assert results(run)["dataset"] == "fashion_mnist"
    assert not (tmp_path / "data").exists()


def test_environment_counts_over_what_the_run_had(moved, launch_here, tiny_idx, tmp_path, monkeypatch):
    tiny_idx.write(tmp_path / "a" / "data")
    run = moved(("data.data_dir=data",))
    (tmp_path / "a" / "data").rename(tmp_path / "b" / "moved")
    monkeypatch.setenv("FMNIST_DATA_DIR", "moved")
    assert launch_here("ckpt_path=../a/run", "trainer.max_epochs=3") == 0
    assert results(run)["dataset"] == "fashion_mnist"


def test_run_on_the_stand_in_stays_on_it_where_the_real_data_are(moved, tiny_idx, tmp_path):
    tiny_idx.write(tmp_path / "b" / "data")
    run = moved(("data.train_size=64",))
    assert results(run)["dataset"] == "synthetic"


@pytest.mark.parametrize("typed", ["~/run", "'~/run'", "~/run/checkpoints/last.ckpt"])
def test_run_in_the_home_is_resumed(launch_here, finished, tmp_path, monkeypatch, typed):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    finished.rename(tmp_path / "run")
    assert launch_here(f"ckpt_path={typed}", "trainer.max_epochs=4") == 0
    assert results(tmp_path / "run")["epochs"] == 4
