"""docs/your_own.md, as a reader follows it: a package outside the repository, from training to export."""

import json
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from documents import ROOT, WRITTEN, read
from PIL import Image

import fmnist_lit
from fmnist_lit import predict
from fmnist_lit.config.trust import VARIABLE
from fmnist_lit.evaluate.__main__ import main as evaluate
from fmnist_lit.export.__main__ import main as export
from fmnist_lit.run.checkpoint import load_checkpoint, same_weights

PAGE = read(ROOT / "docs" / "your_own.md")
COMMAND = re.compile(r"^python -m fmnist_lit (.*)$", re.MULTILINE)
TRUSTING = ("--trust", "mine", "--config-dir", "my_conf")
QUICK = ("num_threads=1", "trainer.accelerator=cpu", "~callbacks.progress_bar", "trainer.max_epochs=2")
TINY = ("data=synthetic", "data.train_size=256", "data.val_size=64", "data.test_size=128")
PARTS = ("model=small_cnn", "loss=focal", "optimizer=lion", "scheduler=halving", "data=bars")
LISTS = ("callbacks=[default,count_epochs]", "logger=[default,text]")


@pytest.fixture
def run(launch_here, tmp_path, monkeypatch):
    """Run a command line where the files of the page are, in a process that has none of them yet."""
    for name, content in WRITTEN.findall(PAGE):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv(VARIABLE, "")
    yield launch_here
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]


def results_of(folder: str) -> dict:
    return json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))


def test_page_has_its_files_and_commands():
    names = [name for name, _ in WRITTEN.findall(PAGE)]
    assert len(names) == len(set(names)) == 13
    assert len(COMMAND.findall(PAGE)) >= 6


def test_all_parts_together_from_training_through_resume_to_export(run, tmp_path, capsys):
    together = (*TRUSTING, *PARTS, *LISTS, *QUICK)
    assert run(*together, "hydra.run.dir=whole") == 0
    assert run(*together, "hydra.run.dir=part", "trainer.max_epochs=1") == 0
    assert run(*TRUSTING, "ckpt_path=part", "trainer.max_epochs=2") == 0
    whole, part = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("whole", "part"))
    assert same_weights(whole["state_dict"], part["state_dict"])
    assert part["callbacks"]["CountEpochs"] == {"epochs": 2}
    results = results_of("part")
    assert results["dataset"] == "Bars"
    assert results["test_images"] == 200
    assert results["provenance"]["trusted"] == ["mine"]
    assert [line.split()[0] for line in Path("whole/log.txt").read_text().splitlines()] == ["1", "2", "2"]
    assert "'accuracy/test'" in Path("whole/log.txt").read_text().splitlines()[-1]

    capsys.readouterr()
    assert evaluate(["--trust", "mine", "part"]) == 0
    told = capsys.readouterr().out
    assert ", as in results.json" in told
    assert "| middle |" in told
    for kind in ("onnx", "safetensors"):
        assert export(["--trust", "mine", "part", "--format", kind, "--output", f"net.{kind}"]) == 0
    bar = np.zeros((28, 28), np.uint8)
    bar[:, 4:8] = 255
    Image.fromarray(bar).save("left.png")
    for source in ("part", "net.safetensors"):
        capsys.readouterr()
        assert predict.main(["--trust", "mine", source, "left.png", "--background", "black", "--json"]) == 0
        (entry,) = json.loads(capsys.readouterr().out)
        assert {choice["label"] for choice in entry["top"]} == {"left", "middle", "right"}
    assert os.environ.pop(VARIABLE) == "mine"  # what a verb has trusted, its process has
    assert fmnist_lit.load_classifier("part", trust=["mine"]).predict(bar).classes == ("left", "middle", "right")
    assert not os.environ.get(VARIABLE)


@pytest.mark.filterwarnings("ignore")  # of Lightning, about its own finder
def test_learning_rate_is_found_for_a_part_of_ones_own(run, capsys):
    from fmnist_lit.find_lr.__main__ import main as find_lr

    assert find_lr([*TRUSTING, *TINY, "model=small_cnn", "optimizer=lion", "num_threads=1", "--steps", "30"]) == 0
    words = "go on with    python -m fmnist_lit --trust mine --config-dir my_conf data=synthetic "
    assert words in capsys.readouterr().out
    assert find_lr([*TRUSTING[2:], *TINY, "model=small_cnn"]) == 2
    assert "if you trust mine, add --trust mine" in capsys.readouterr().err


@pytest.mark.parametrize("part", ["loss=hinge", "optimizer=lion"])
def test_a_part_beside_ours(run, part):
    assert run(*TRUSTING, *TINY, *QUICK, "trainer.max_epochs=1", part, "hydra.run.dir=run") == 0
    assert results_of("run")["steps"] == 4


def test_without_trust_nothing_runs_and_the_refusal_says_what_to_add(run, tmp_path, capsys):
    assert run(*TRUSTING, *PARTS, *QUICK, "trainer.max_epochs=1", "hydra.run.dir=run") == 0
    for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
        del sys.modules[name]
    capsys.readouterr()
    assert run("--config-dir", "my_conf", "model=small_cnn", *TINY, *QUICK, "hydra.run.dir=other") == 2
    assert capsys.readouterr().err == (
        "error: model._target_=mine.models.SmallCNN: is not trusted; if you trust mine, add --trust mine\n"
    )
    assert not Path("other").exists()
    assert run("--config-dir", "my_conf", "ckpt_path=run", "trainer.max_epochs=2") == 2
    assert "add --trust mine" in capsys.readouterr().err
    for verb in (evaluate, lambda words: export([*words, "--format", "torch"]), lambda w: predict.main([*w, "x.png"])):
        assert verb(["run"]) == 1
        assert "add --trust mine" in capsys.readouterr().err
    with pytest.raises(fmnist_lit.CheckpointError, match="add --trust mine"):
        fmnist_lit.load_classifier("run")
    assert "mine" not in sys.modules


@pytest.mark.parametrize("setting", ["hydra.job.env_set.FMNIST_LIT_TRUST=mine", "+trust=mine", "+trust=[mine]"])
def test_no_file_can_set_it(run, setting, capsys):
    assert run("--config-dir", "my_conf", "model=small_cnn", *TINY, *QUICK, setting, "hydra.run.dir=other") == 2
    assert "mine" not in sys.modules
    assert not Path("other").exists()


@pytest.mark.parametrize(
    ("target", "leads_to"),
    [
        ("mine.losses.torch.hub.load", "torch.hub"),
        ("mine.watching.Path.touch", "pathlib"),
        ("mine.losses.nn.CrossEntropyLoss", "torch.nn"),
        ("mine.losses.FocalLoss.__init__.__globals__", "None"),
        ("mine.losses.FocalLoss.apply", "torch.nn"),
    ],
)
def test_trust_ends_where_the_package_does(run, target, leads_to):
    words = (f"loss._target_={target}", *TINY, *QUICK, "hydra.run.dir=run", "~loss.label_smoothing")
    assert run(*TRUSTING, *words) in (1, 2)
    if Path("run").exists():
        assert re.search(rf"leads to {leads_to}.*which is not", results_of("run")["error"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trust", "nosuch"], "--trust nosuch: there is no package nosuch"),
        (["--trust", "rm -rf"], "--trust rm -rf: must be the name of a package"),
        (["--trust", "mine", "model._target_=mine.models.SmalCNN"], "no such class; did you mean SmallCNN?"),
        (["--trust", "mine", "model._target_=mine.modles.SmallCNN"], "there is no module mine.modles"),
        ([*TRUSTING, "model=small_cnn", "+model.chanels=3"], "model.chanels: SmallCNN takes no such argument"),
        ([*TRUSTING, "data=bars", "+data.source.sizes=3"], "data.source.sizes: Bars takes no such argument"),
        ([*TRUSTING, "data=bars", "data.source._partial_=false"], "data.source._partial_: must be true"),
        ([*TRUSTING, "data._target_=mine.data.Bars"], "a data set of your own is data.source._target_"),
        (
            ["callbacks=[default,count_epochs]"],
            "callbacks=count_epochs: must be one of dashboard, default, early_stopping, ema; --config-dir",
        ),
    ],
)
def test_wrong_words_are_one_line_and_leave_nothing(run, capsys, words, message):
    assert run(*words, *QUICK, "hydra.run.dir=run") == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert not Path("run").exists()


WRONG = """
from torch import nn
from torch.optim import SGD
from torch.utils.data import Dataset
import torch

three = lambda num_classes: 3
def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
def for_rows():
    return nn.Linear(784, 10)
def number():
    return 5
class Deaf(SGD):
    def step(self, closure=None):
        super().step()
class Given(Dataset):
    item, classes = (torch.zeros(28, 28), 0), ["a", "b"]
    def __init__(self, train: bool): pass
    def __len__(self): return 8
    def __getitem__(self, number): return self.item
class NoLabels(Given):
    item = torch.zeros(28, 28)
class Words(Given):
    item = torch.zeros(28, 28), "boot"
class Large(Given):
    item = torch.zeros(3, 64, 64), 0
class Bright(Given):
    item = torch.full((28, 28), 255.0), 0
class Beyond(Given):
    item = torch.zeros(28, 28), 2
class Empty(Given):
    def __len__(self): return 0
class Broken(Given):
    def __getitem__(self, number): raise OSError("the disk is gone")
class Neither(Given):
    def __init__(self): pass
class Small(Given):
    pass
"""


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            "model._target_=mine.wrong.narrow",
            r"makes \(2, 3\) of images \(2, 1, 28, 28\); must be \(2, 10\), a logit a class",
        ),
        ("model._target_=mine.wrong.for_rows", "cannot take images (2, 1, 28, 28): RuntimeError: "),
        ("model._target_=mine.wrong.number", "gives int, must give a torch.nn.Module"),
        ("optimizer._target_=mine.wrong.Deaf", "optimizer: its step() does not call the closure"),
        ("NoLabels", "NoLabels[0] is Tensor, must be (image, label); a data set without labels cannot train"),
        ("Words", "the label of Words[0] is 'boot', must be a whole number from 0"),
        ("Large", "the image of Large[0] is (3, 64, 64), must be (28, 28) or (1, 28, 28)"),
        ("Bright", "from 255.0 to 255.0, must be uint8 or floats from 0 to 1"),
        ("Beyond", "classes of Beyond must be a list of at least two names, one for each label; labels go up to 2"),
        ("Empty", "Empty has no image"),
        ("Broken", "Broken[0] fails: OSError: the disk is gone"),
        ("Neither", "Neither takes neither train=True|False nor split='train'|'test'"),
        ("Small", "data.train_size=null and data.val_size=5000: together more than the 8 training images"),
    ],
)
def test_wrong_parts_are_said_in_a_line(run, part, message):
    Path("mine/wrong.py").write_text(WRONG)
    data = TINY
    if part[0].isupper():
        part, data = f"data.source={{_target_: mine.wrong.{part}, _partial_: true}}", ()
    cut = [
        f"~model.{key}" for key in ("hidden_sizes", "activation", "dropout", "batch_norm") if part.startswith("model")
    ]
    status = run("--trust", "mine", *data, *QUICK, part, *cut, "hydra.run.dir=run", "trainer.max_epochs=1")
    assert status == 1
    error = results_of("run")["error"]
    assert re.search(message, error) or message in error
    assert "\n" not in error


def test_sweep_repeats_with_whom_it_trusted(run):
    sweep = ("-m", "model=small_cnn", "model.channels=2,3", "data=bars", *QUICK, "trainer.max_epochs=1")
    assert run(*TRUSTING, *sweep, "hydra.sweep.dir=sweep") == 0
    assert results_of("sweep/model.channels=3")["status"] == "completed"
    page = Path("sweep/summary.md").read_text(encoding="utf-8")
    words = shlex.split(next(line for line in page.splitlines() if "python -m" in line))
    assert words[words.index("--trust") + 1] == "mine"
    assert json.loads(Path("sweep/sweep.json").read_text())["command"].startswith("python -m fmnist_lit --trust mine")
    assert "FMNIST_LIT_TRUST: mine" in Path("sweep/model.channels=3/.hydra/hydra.yaml").read_text()  # for any worker


def test_workers_of_their_own_trust_it_too(run, command, tmp_path):
    shared = ("model=small_cnn", "data=bars", *QUICK, "trainer.max_epochs=1")
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=sweep")
    ended = command(*TRUSTING, "-m", *shared, "seed=1", *parallel)
    assert ended.returncode == 0, ended.stderr
    assert run(*TRUSTING, *shared, "seed=1", "hydra.run.dir=alone") == 0
    alone, job = (load_checkpoint(tmp_path / name / "checkpoints/last.ckpt") for name in ("alone", "sweep/defaults"))
    assert same_weights(alone["state_dict"], job["state_dict"])


def test_start_from_weights_says_what_has_no_place(run, capsys):
    assert run(*SMALL, "hydra.run.dir=base") == 0
    assert run(*SMALL, "init_from=base", "optimizer=adam", "hydra.run.dir=same", "trainer.max_epochs=1") == 0
    other = ("data=bars", "init_from=base/checkpoints/last.ckpt", "model.hidden_sizes=[32]", *QUICK)
    assert run(*TRUSTING, *other, "hydra.run.dir=head") == 0
    told = capsys.readouterr().out
    assert "base/checkpoints/best.ckpt (epoch 1): 4 of 4 tensors" in told
    assert "base/checkpoints/last.ckpt (epoch 2): 2 of 4 tensors" in told
    assert "Not loaded: 3.weight ((10, 32) there, (3, 32) here), 3.bias ((10,) there, (3,) here)" in told
    assert results_of("head")["init_from"] == "base/checkpoints/last.ckpt"
    assert results_of("same")["val_loss"] < results_of("base")["val_loss"]
    shutil.rmtree("base")  # a run that started from it goes on without it
    assert run("ckpt_path=same", "trainer.max_epochs=2") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["init_from=nosuch"], "init_from=nosuch: no such run folder or checkpoint"),
        (["init_from=latest"], "init_from=latest: must name the run"),
        (["init_from=base", "ckpt_path=base"], "give one of them"),
    ],
)
def test_start_from_nothing_is_refused(run, capsys, words, message):
    assert run(*SMALL, "hydra.run.dir=base", "trainer.max_epochs=1") == 0
    assert run(*SMALL, *words, "hydra.run.dir=run") == 2
    assert message in capsys.readouterr().err
    assert not Path("run").exists()
    assert run(*SMALL, "model.hidden_sizes=[]", "init_from=base", "hydra.run.dir=run") == 1
    assert "none of its weights has the name and shape" in results_of("run")["error"]
