import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from fmnist_lit.build import make_datamodule, make_trainer
from fmnist_lit.run.answers import ANSWERS, Answers, pack, read_answers, write_answers
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.train import train

SPOILING = ("optimizer=adam", "scheduler=exponential", "scheduler.gamma=20", "trainer.max_epochs=4")


def bits(run_dir: Path) -> list[bool]:
    content = json.loads((run_dir / ANSWERS).read_text())
    return [digit == "1" for digit in f"{int(content['correct'], 16):0{content['num_images']}b}"]


def recomputed(cfg, run_dir: Path) -> list[bool]:
    """Whether the weights in best.ckpt get each validation image right."""
    data = make_datamodule(cfg, make_trainer(cfg))
    model = instantiate(cfg.model)
    saved = load_checkpoint(run_dir / "checkpoints" / "best.ckpt")["state_dict"]
    model.load_state_dict({name.removeprefix("model."): weight for name, weight in saved.items()})
    with torch.no_grad():
        logits = model.eval()(data.scale(data.val_images.pixels))
    return (logits.argmax(dim=1) == data.val_images.labels).tolist()


@pytest.mark.parametrize("steps_per_batch", [1, 50])
def test_a_run_keeps_which_validation_images_its_best_epoch_gets_right(configure, tmp_path, steps_per_batch):
    cfg = configure(*SPOILING, f"trainer.steps_per_batch={steps_per_batch}", "data.eval_batch_size=20")
    results = train(cfg)
    run_dir = tmp_path / "run"
    assert results["best_epoch"] < 4
    assert bits(run_dir) == recomputed(cfg, run_dir)
    assert 0 < sum(bits(run_dir)) < 64
    answers = read_answers(run_dir, results["best_epoch"], results["val_accuracy"])
    assert answers.accuracy == results["val_accuracy"]


@pytest.mark.parametrize("stop", [5, 12, 16])  # 4 steps an epoch: in the second, at the end of the third and the fourth
def test_a_resumed_run_keeps_what_an_uninterrupted_one_keeps(configure, tmp_path, stop):
    train(configure(*SPOILING, run_dir="whole"))
    train(configure(*SPOILING, f"trainer.max_steps={stop}", run_dir="parts"))
    (tmp_path / "parts" / ANSWERS).unlink(missing_ok=True)  # as after a kill
    train(configure(*SPOILING, f"ckpt_path='{tmp_path / 'parts' / 'checkpoints' / 'last.ckpt'}'", run_dir="parts"))
    assert (tmp_path / "parts" / ANSWERS).read_bytes() == (tmp_path / "whole" / ANSWERS).read_bytes()


@pytest.mark.parametrize(
    "overrides", [["data.val_size=0"], ["evaluate_each_epoch=[test]"], ["+trainer.limit_val_batches=1"]]
)
def test_nothing_is_kept_where_not_all_of_the_validation_images_are_evaluated(configure, tmp_path, overrides):
    train(configure("trainer.max_epochs=1", "data.eval_batch_size=20", *overrides))
    assert not (tmp_path / "run" / ANSWERS).exists()


def test_the_fingerprint_tells_other_validation_images(configure):
    def fingerprint(*overrides: str) -> str:
        cfg = configure(*overrides)
        return make_datamodule(cfg, make_trainer(cfg)).val_fingerprint

    same = fingerprint()
    assert fingerprint("seed=1", "data.normalize=true", "data.train_size=100", "data.batch_size=32") == same
    assert len({same, fingerprint("data.val_size=65"), fingerprint("data.synthetic_seed=1")}) == 3


def test_answers_are_read_as_they_were_written(tmp_path):
    write_answers(tmp_path, 3, pack("abc", [False, True, False, True, True]))
    answers = read_answers(tmp_path, 3, 0.6)
    assert answers == Answers("abc", 5, 0b01011)
    assert answers.accuracy == 0.6
    assert json.loads((tmp_path / ANSWERS).read_text())["correct"] == "0b"


@pytest.mark.parametrize(
    "content",
    [
        None,
        "",
        "[]",
        "{}",
        '{"epoch": 2, "images": "abc", "num_images": 5, "correct": "0b"}',  # of another epoch
        '{"epoch": 3, "images": "abc", "num_images": 5, "correct": "0f"}',  # of another accuracy
        '{"epoch": 3, "images": "abc", "num_images": 5, "correct": "70"}',  # more digits than images
        '{"epoch": 3, "images": "abc", "num_images": 5, "correct": "-b"}',
        '{"epoch": 3, "images": "abc", "num_images": 5, "correct": 11}',
        '{"epoch": 3, "images": "abc", "num_images": 0, "correct": "0"}',
        '{"epoch": 3, "images": "abc", "num_images": "x", "correct": "0b"}',
    ],
)
def test_answers_that_are_damaged_or_of_something_else_are_none(tmp_path, content):
    if content is not None:
        (tmp_path / ANSWERS).write_text(content)
    assert read_answers(tmp_path, 3, 0.6) is None
