"""Pictures by epoch: what is in them, and that drawing them changes nothing of the run."""

import io

import numpy as np
import pytest
import torch
from event_contents import contents, read_all, steps
from interruptions import outcome
from PIL import Image
from torch import nn

from fmnist_lit.chunked import what_needs_single_steps
from fmnist_lit.command_line.job import run_job
from fmnist_lit.dashboard.evaluated import EvaluatedSplit, show_mistakes, show_precision_recall
from fmnist_lit.dashboard.pictures import Pictures, first_layer, show_training_images
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.images import Images
from fmnist_lit.loggers import TensorBoardLogger
from fmnist_lit.model import CNN, MLP
from fmnist_lit.report.sheets import MARGIN, weight_sheet

DASHBOARD = ("logger=default", "callbacks=[default,dashboard]")
# all that could be disturbed: dropout, running averages, averaged weights, mirror images, another order of the epoch
DELICATE = (
    *("model.dropout=0.2", "model.batch_norm=true", "flip_average=true", "data.augmentation.flip=true"),
    *("+callbacks.ema={_target_:fmnist_lit.averaging.WeightEMA,decay:0.9}", "data.eval_batch_size=40"),
)
PICTURES = ("images/train", "weights/first_layer", "confusion_matrix/val", "mistakes/val")


@pytest.mark.parametrize("class_", ["fast", "textbook"])
def test_dashboard_changes_no_bit_of_the_run(configure, tmp_path, class_):
    steps_per_batch = {"fast": "auto", "textbook": "1"}[class_]
    delicate = (*DELICATE, f"trainer.steps_per_batch={steps_per_batch}")
    run_job(configure(*delicate, run_dir="without"))
    run_job(configure(*delicate, *DASHBOARD, run_dir="with"))
    assert outcome(tmp_path / "with") == outcome(tmp_path / "without")
    for tag in PICTURES:
        assert steps(tmp_path / "with", tag) == ([0, 1, 2] if tag == "weights/first_layer" else [1, 2])
    curves = [tag for tag in contents(tmp_path / "with") if tag.startswith("precision_recall_val/")]
    assert len(curves) == 10
    assert all(steps(tmp_path / "with", tag) == [1, 2] for tag in curves)


def test_pictures_leave_the_fast_class_alone():
    assert what_needs_single_steps({}, [Pictures()]) is None


def test_pictures_are_of_the_answers_that_were_validated(configure, tmp_path, monkeypatch):
    seen: list[EvaluatedSplit] = []
    monkeypatch.setattr(
        "fmnist_lit.dashboard.pictures.show_mistakes", lambda logger, answers, epoch: seen.append(answers)
    )
    left_out = ("callbacks.pictures.weights=false", "callbacks.pictures.training_images=false")
    run_job(configure(*DASHBOARD, *DELICATE, *left_out, "optimizer=adam"))
    rights = [float((answers.predicted == answers.labels).mean()) for answers in seen]
    assert rights == pytest.approx([accuracy for _, accuracy in contents(tmp_path / "run")["accuracy/val"]])
    assert seen[0].probabilities.sum(axis=1) == pytest.approx(1)
    assert not {"weights/first_layer", "images/train"} & set(read_all(tmp_path / "run").Tags()["images"])


def test_split_of_the_tutorial_is_the_test_set(configure, tmp_path):
    run_job(configure(*DASHBOARD, "experiment=tutorial", "data.val_size=0", "trainer.max_epochs=1"))
    assert steps(tmp_path / "run", "confusion_matrix/test") == [1]


def test_part_of_the_images_has_no_pictures_of_answers(configure, tmp_path):
    run_job(configure(*DASHBOARD, "+trainer.limit_val_batches=1", "data.eval_batch_size=30"))
    assert read_all(tmp_path / "run").Tags()["images"] == ["weights/first_layer", "images/train"]


def test_training_images_are_those_that_the_network_sees(tmp_path):
    data = FashionMNISTDataModule(
        "synthetic", train_size=60, val_size=0, test_size=10, shuffle=False, augmentation={"flip": True, "shift": 2}
    )
    data.setup()
    (chunk, _), *_ = data.train_dataloader()
    logger = TensorBoardLogger(tmp_path)
    show_training_images(logger, data, 1)
    logger.experiment.close()
    (event,) = read_all(tmp_path).Images("images/train")
    sheet = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    first = sheet[MARGIN : MARGIN + 4 * 28 : 4, MARGIN : MARGIN + 4 * 28 : 4]
    assert np.array_equal(first, (255 * chunk[0, 0]).round().byte().numpy())


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (MLP(), (512, 28, 28)),
        (CNN(), (16, 3, 3)),
        (nn.Sequential(nn.Flatten(), nn.Linear(784, 5)), (5, 28, 28)),
        (nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(196, 10)), None),
        (nn.Identity(), None),
    ],
    ids=["mlp", "cnn", "own", "of fewer pixels", "none"],
)
def test_first_layer_is_shown_where_it_is_over_the_pixels(model, shape):
    found = first_layer(model)
    assert (found and found[1].shape) == shape


def test_weights_are_red_and_blue_by_their_sign_and_strength():
    weights = np.zeros((9, 2, 2), np.float32)
    weights[0, 0, 0], weights[0, 1, 1], weights[1, 0, 0] = 2, -1, np.nan
    sheet = np.asarray(Image.open(io.BytesIO(weight_sheet(weights, scale=1))).convert("RGB"))
    assert sheet.shape == (2 * 6, 8 * 6, 3)
    assert sheet[2, 2].tolist() == [255, 0, 0]
    assert sheet[3, 3].tolist() == pytest.approx([127, 127, 255], abs=1)
    assert (sheet[2:4, 8:10] == 255).all()


def test_names_of_classes_may_be_anything_and_nothing_may_be_wrong(tmp_path):
    images = Images(torch.zeros(3, 1, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 1]))
    answers = EvaluatedSplit("val", images, ("a / b", "靴子"), np.eye(2, dtype=np.float32)[[0, 1, 1]])
    logger = TensorBoardLogger(tmp_path)
    show_mistakes(logger, answers, 1)
    show_precision_recall(logger, answers, 1)
    logger.experiment.close()
    assert set(contents(tmp_path)) == {"precision_recall_val/0_a___b", "precision_recall_val/1_靴子"}
