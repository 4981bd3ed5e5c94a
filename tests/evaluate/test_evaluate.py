import json
import shutil

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_f1_score

import fmnist_lit
from fmnist_lit.command_line.job import run_job
from fmnist_lit.evaluate.__main__ import main
from fmnist_lit.evaluate.evaluation import calibration_bins
from fmnist_lit.evaluate.measure import evaluate
from fmnist_lit.run.files import read_json
from fmnist_lit.run.find import find_trained
from fmnist_lit.trained.data import open_data


@pytest.fixture
def copied(trained_run, tmp_path):
    return shutil.copytree(trained_run, tmp_path / "copy")


@pytest.mark.parametrize("split", ["test", "val"])
@pytest.mark.parametrize(
    "overrides",
    [
        "optimizer=adam loss=mse data.eval_batch_size=37 trainer.max_epochs=3",
        "trainer.precision=bf16-mixed model.batch_norm=true data.normalize=true",
        "trainer.precision=64-true loss=label_smoothing",
        "flip_average=true callbacks=ema optimizer=adam",
        "experiment=tutorial evaluate_each_epoch=[val] data.val_size=64",
    ],
)
def test_figures_are_those_of_the_run_to_the_last_digit(configure, tmp_path, overrides, split):
    run_job(configure(*overrides.split()))
    results = read_json(tmp_path / "run" / "results.json")
    evaluation, _ = evaluate(find_trained(tmp_path / "run"), split)
    assert (evaluation.accuracy, evaluation.loss) == (results[f"{split}_accuracy"], results[f"{split}_loss"])
    assert evaluation.as_in_results
    flipped = [results.get(f"{split}_{kind}_flip_average") for kind in ("accuracy", "loss")]
    assert (evaluation.flip_average or (None, None)) == tuple(flipped)


def test_figures_other_than_the_runs_are_said_to_be(copied):
    results = read_json(copied / "results.json")
    (copied / "results.json").write_text(json.dumps(results | {"test_loss": results["test_loss"] + 1e-9}))
    evaluation, _ = evaluate(find_trained(copied))
    assert not evaluation.as_in_results
    assert "NOT as in results.json" in evaluation.summary


def test_tables_and_charts_are_written_beside_the_checkpoint(copied, capsys):
    assert main([str(copied)]) == 0
    screen = capsys.readouterr().out
    folder = copied / "evaluation" / "best_test"
    written = json.loads((folder / "evaluation.json").read_text())
    classifier = fmnist_lit.load_classifier(copied)
    data = open_data(classifier)
    data.setup()
    labels, predictions = data.test_images.labels, classifier.predict(data.test_images.pixels)
    f1 = multiclass_f1_score(predictions.class_indices, labels, 10, average="none").tolist()
    assert [row["F1"] for row in written["per_class"]] == pytest.approx(f1, abs=1e-6)
    assert sum(row["support"] for row in written["per_class"]) == written["samples"] == len(labels) == 128
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels.numpy(), predictions.class_indices.numpy()), 1)
    assert written["confusion"] == confusion.tolist()
    wrong = {
        i: float(predictions.probabilities[i].max()) for i in range(128) if predictions.class_indices[i] != labels[i]
    }
    surest = sorted(wrong, key=wrong.get, reverse=True)[:24]
    assert [mistake["index"] for mistake in written["mistakes"]] == surest
    for name in ("confusion_matrix", "mistakes", "reliability"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"({name}.png)" in (folder / "evaluation.md").read_text()
    assert "SYNTHETIC stand-in" in screen
    assert "Ankle boot" in screen


def test_calibration_error_is_that_of_torchmetrics(copied):
    generator = torch.Generator().manual_seed(0)
    probabilities = (3 * torch.randn(2000, 10, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(10, (2000,), generator=generator)
    evaluation, _ = evaluate(find_trained(copied))
    evaluation.bins[:] = calibration_bins(probabilities.amax(1).numpy(), (probabilities.argmax(1) == labels).numpy())
    evaluation.confusion[:] = [[2000]]
    expected = multiclass_calibration_error(probabilities, labels, 10, n_bins=15)
    assert evaluation.calibration_error == pytest.approx(float(expected), rel=1e-5)


def test_several_checkpoints_give_one_table_and_a_bad_one_does_not_stop_it(copied, capsys):
    (copied / "broken.ckpt").write_bytes(b"PK")
    last = copied / "checkpoints" / "last.ckpt"
    assert main([str(copied), str(copied / "broken.ckpt"), str(last), "--split", "val"]) == 1
    screen = capsys.readouterr()
    table = screen.out[screen.out.index("| checkpoint") :].splitlines()
    assert len(table) == 4
    assert {line.split("|")[1].strip() for line in table[2:]} == {"copy", "copy (last)"}
    assert "broken.ckpt: not a checkpoint" in screen.err


def test_split_that_the_run_does_not_have_is_an_error(configure, tmp_path, capsys):
    run_job(configure("data.val_size=0", "trainer.max_epochs=1"))
    assert main([str(tmp_path / "run"), "--split", "val"]) == 1
    assert "has no validation images" in capsys.readouterr().err
