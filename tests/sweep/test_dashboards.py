"""The dashboards of a sweep's best jobs, from checkpoints, and how a sweep's page leads to TensorBoard."""

import shlex

import pytest
from conftest import SMALL
from event_contents import contents, steps

from fmnist_lit.sweep.__main__ import main

DRAWN = ("images/train", "weights/first_layer", "confusion_matrix/val", "weights/1_Linear.weight", "dead_units/2_ReLU")


def test_best_jobs_of_a_sweep_have_their_dashboards_without_being_trained_again(launch_here, tmp_path, capsys):
    run = (*SMALL, "~callbacks.progress_bar", "logger=tensorboard", "hydra.sweep.dir=sweep")
    assert launch_here("-m", *run, "optimizer.lr=1e-6,0.1") == 0
    best, other = (tmp_path / "sweep" / f"optimizer.lr={lr}" for lr in ("0.1", "1e-06"))
    checkpoint = (best / "checkpoints" / "last.ckpt").read_bytes()
    before = contents(other)
    for _ in range(2):  # the second replaces the first
        assert main(["sweep", "--dashboard", "1"]) == 0
        assert f"Dashboards of the best: {best.name}" in capsys.readouterr().out
        for tag in DRAWN:
            assert len(steps(best, tag)) == 1
        assert {tag for tag in contents(best) if tag.startswith("precision_recall_val/")}
    assert steps(best, "loss/train") == [1, 2]
    assert (best / "projector" / "after_training.tsv").exists()
    assert (best / "checkpoints" / "last.ckpt").read_bytes() == checkpoint
    assert contents(other) == before
    (best / "checkpoints" / "best.ckpt").write_bytes(b"")
    assert main(["sweep", "--dashboard", "1"]) == 1
    assert capsys.readouterr().err.count("\n") == 1

    for page in ("summary.html", "summary.md"):
        assert (
            shlex.join(["tensorboard", "--logdir", str(tmp_path / "sweep")]) in (tmp_path / "sweep" / page).read_text()
        )


@pytest.mark.parametrize("number", ["0", "-1", "x"])
def test_number_of_dashboards_is_a_number(number, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", f"--dashboard={number}"])
    assert "--dashboard" in capsys.readouterr().err
