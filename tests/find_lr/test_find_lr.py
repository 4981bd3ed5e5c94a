"""python -m fmnist_lit.find_lr: the same steps as Lightning's tuner takes, and what people are told."""

import csv
import json
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from conftest import SMALL, options
from hydra._internal.utils import get_args_parser
from lightning.pytorch.tuner import Tuner

from fmnist_lit.build import make_classifier, make_datamodule, make_model, make_trainer
from fmnist_lit.command_line.compose import composer
from fmnist_lit.config.check import check_configuration
from fmnist_lit.find_lr import range_test
from fmnist_lit.find_lr.__main__ import main
from fmnist_lit.find_lr.curve import Range
from fmnist_lit.find_lr.range_test import in_proportion, run_range_test

TINY = (*SMALL, "data.train_size=1000", "data.batch_size=32")
NOISY = pytest.mark.filterwarnings("ignore")  # of Lightning, about its own finder


@pytest.fixture
def find_lr(tmp_path, monkeypatch) -> Callable[..., int]:
    """Run the command in ``tmp_path``."""
    monkeypatch.chdir(tmp_path)
    return lambda *words: main([*words, *TINY])


@pytest.fixture
def facts(tmp_path) -> Callable[[], dict]:
    """What the newest find_lr.json says."""
    return lambda: json.loads(max((tmp_path / "outputs" / "find_lr").glob("*/find_lr.json")).read_text("utf-8"))


@NOISY
def test_range_test_is_that_of_plain_lightning(configure, tmp_path, monkeypatch):
    """Rates, losses and suggestion are the same to the last bit."""
    cfg = configure("data.train_size=1000", "data.batch_size=32", "optimizer=sgd_momentum", "data.shuffle=false")
    seen: list[float] = []
    step = range_test.make_classifier

    def recording(*parts):
        classifier = step(*parts)
        original = classifier.training_step

        def training_step(*batch):
            loss = original(*batch)
            seen.append(float(loss.detach()))
            return loss

        classifier.training_step = training_step
        return classifier

    monkeypatch.setattr(range_test, "make_classifier", recording)
    measured = run_range_test(cfg, Range(1e-5, 1.0, 40), tmp_path)
    data = make_datamodule(cfg, make_trainer(configure("trainer.steps_per_batch=1")))
    model = make_model(cfg, 10)

    class Plain(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.lr = model, 0.1

        def training_step(self, batch, index):
            return torch.nn.functional.cross_entropy(self.model(batch[0]), batch[1])

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9, fused=True)

    images, labels = data.scale(data.train_images.pixels), data.train_images.labels
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), batch_size=32)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=-1, enable_checkpointing=False, default_root_dir=tmp_path, **quiet)
    finder = Tuner(trainer).lr_find(Plain(), loader, min_lr=1e-5, max_lr=1.0, num_training=40)
    assert list(measured.curve.rates) == finder.results["lr"]
    assert list(measured.curve.averaged) == finder.results["loss"]
    assert measured.lightning == finder.suggestion()
    assert measured.curve.losses == pytest.approx(seen, rel=1e-5)
    assert not list(tmp_path.glob(".lr_find*"))


@NOISY
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimiser_gets_a_suggestion_and_the_command_to_go_on(find_lr, facts, tmp_path, capsys, optimizer):
    assert find_lr(f"optimizer={optimizer}", "scheduler=one_cycle") == 0
    said, told = capsys.readouterr().out, facts()
    assert told["min_lr"] < told["suggestion"] < told["max_lr"]
    assert f"optimizer.lr={told['suggestion']:.2g} (Lightning's own: {told['lightning_suggestion']:.2g})" in said
    assert f"go on with    {told['command']}" in said
    assert "the test has a schedule of its own in place of OneCycleLR" in said
    assert ("optimizer.adamw_lr=0.003 rises in proportion in the test" in said) is (optimizer == "muon")
    assert "SYNTHETIC stand-in" in said
    words = shlex.split(told["command"])
    assert words[:3] == ["python", "-m", "fmnist_lit"]
    with composer(args := get_args_parser().parse_args(words[3:])) as compose:
        cfg = compose(*args.overrides)
    check_configuration(cfg)
    assert cfg.optimizer.lr == pytest.approx(told["suggestion"], rel=0.05)
    (folder,) = (tmp_path / "outputs" / "find_lr").iterdir()
    assert (folder / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    rows = list(csv.DictReader((folder / "find_lr.csv").open()))
    assert len(rows) == told["steps_taken"]
    assert any(float(row["lr"]) == told["suggestion"] for row in rows)
    assert [child.name for child in (tmp_path / "outputs").iterdir()] == ["find_lr"]


@NOISY
def test_same_command_gives_the_same_suggestion(find_lr, tmp_path):
    assert find_lr("optimizer=adam", "hydra.run.dir=a") == find_lr("optimizer=adam", "hydra.run.dir=b") == 0
    for name in ("find_lr.csv", "find_lr.json", "find_lr.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert find_lr("optimizer=adam", "hydra.run.dir=c", "seed=1") == 0
    assert (tmp_path / "a" / "find_lr.csv").read_bytes() != (tmp_path / "c" / "find_lr.csv").read_bytes()


@NOISY
@pytest.mark.parametrize("optimizer", ["muon", "sgd"])
@pytest.mark.parametrize("decay_biases", ["true", "false"])
def test_other_rates_of_an_optimiser_keep_their_proportion(configure, monkeypatch, tmp_path, optimizer, decay_biases):
    cfg = configure("data.train_size=1000", f"optimizer={optimizer}", f"regularization.decay_biases={decay_biases}")
    seen: list[list[float]] = []

    def watching(*arguments, **options):
        made = in_proportion(*arguments, **options)
        made.register_step_pre_hook(lambda optimizer, *_: seen.append([g["lr"] for g in optimizer.param_groups]))
        return made

    monkeypatch.setattr(range_test, "in_proportion", watching)
    measured = run_range_test(cfg, Range(1e-5, 1e-2, 20), tmp_path)
    (first, *others) = zip(*seen, strict=True)
    assert list(first) == list(measured.curve.rates)
    assert len(others) == (optimizer == "muon") + (decay_biases == "false")
    proportion = 0.003 / 0.02 if optimizer == "muon" else 1.0
    for rates in others:
        assert rates == pytest.approx([proportion * rate for rate in first])


@NOISY
@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--min-lr", "1e3", "--max-lr", "1e9"), "the loss blew up within"),
        (("--max-lr", "1e-5"), "the loss never fell, and it did not blow up; a higher --max-lr than 1e-05"),
        (("optimizer=adam", "--max-lr", "1e-3"), "the loss still falls at the end; a higher --max-lr than 0.001"),
    ],
    ids=["at once", "never", "to the end"],
)
def test_range_that_shows_nothing_gets_no_suggestion(find_lr, facts, capsys, words, reason):
    assert find_lr(*words) == 1
    told = facts()
    assert (told["suggestion"], told["command"]) == (None, None)
    assert told["words"].startswith(reason)
    said = capsys.readouterr()
    assert told["words"] in said.out
    assert "No suggestion" in said.out
    assert "go on with" not in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--min-lr", "1", "--max-lr", "0.1"), "--min-lr 1 --max-lr 0.1: the second must be the higher one"),
        (("--min-lr", "0"), "--min-lr 0: must be a finite number > 0"),
        (("--max-lr", "inf"), "--max-lr inf: must be a finite number > 0"),
        (("--steps", "5"), "--steps 5: must be a whole number from 20 to 10000"),
        (("-m", "seed=0,1"), "seed=0,1: several values; find_lr takes one configuration"),
        (("-m",), "-m: find_lr takes one configuration, not a sweep"),
        (("study=sgd_lr",), "study: find_lr takes one configuration, not a sweep"),
        (("ckpt_path=run",), "ckpt_path=run: find_lr trains from the start; leave it out"),
        (
            ("trainer.devices=2",),
            "trainer.devices=2: find_lr takes one; trainer.devices=1 data.batch_size=64 is as much",
        ),
        (("+trainer.fast_dev_run=true",), "trainer.fast_dev_run=True: would skip the steps; leave it out"),
        (("--cfg", "job"), "find_lr prints no configuration; python -m fmnist_lit does, with the same words"),
        (("optimizer.lrr=1",), "optimizer.lrr: no such key; did you mean optimizer.lr?"),
        (("~optimizer.lr",), "optimizer.lr: torch.optim.SGD has none that could be found"),
    ],
    ids=" ".join,
)
def test_what_cannot_be_tested_is_refused_in_one_line_and_leaves_nothing(find_lr, tmp_path, capsys, words, message):
    assert find_lr(*words) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", [("--steps", "many"), ("--min-lr", "low")], ids=" ".join)
def test_number_that_is_none_is_refused(find_lr, capsys, words):
    with pytest.raises(SystemExit, match="2"):
        find_lr(*words)
    assert f"{words[0]}: invalid" in capsys.readouterr().err


def test_run_that_is_there_is_not_written_over(find_lr, tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text("{}")
    assert find_lr("hydra.run.dir=run") == 2
    assert "hydra.run.dir=run: holds a run already" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "run").iterdir()} <= {"results.json", ".lock"}


def test_signal_between_two_steps_ends_it_without_a_trace(find_lr, tmp_path, monkeypatch, capsys):
    def stopping(*arguments, **options):
        signal.raise_signal(signal.SIGTERM)
        return in_proportion(*arguments, **options)

    monkeypatch.setattr(range_test, "in_proportion", stopping)
    assert find_lr() == 143
    assert capsys.readouterr().err.endswith("Interrupted by SIGTERM.\n")
    assert not list(tmp_path.iterdir())


def test_missing_data_is_one_line(tmp_path, monkeypatch, capsys, tiny_idx):
    monkeypatch.chdir(tmp_path)
    assert main(["data=fashion_mnist", "trainer.accelerator=cpu", "num_threads=1"]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "Fashion-MNIST is not in" in line
    assert not Path(tmp_path, "outputs").exists()


def test_bits_of_a_run_do_not_depend_on_a_range_test_before_it(configure, tmp_path):
    from fmnist_lit.train import train

    digests = [train(configure(run_dir="before"))["weights_sha256"]]
    run_range_test(configure(), Range(1e-5, 1.0, 20), tmp_path)
    digests.append(train(configure(run_dir="after"))["weights_sha256"])
    assert digests[0] == digests[1]
    assert make_classifier is range_test.make_classifier
