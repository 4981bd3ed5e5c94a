"""The dashboard of a sweep's best jobs, drawn from the checkpoints that were tested: nobody has to train them again."""

from pathlib import Path

import torch
from omegaconf import OmegaConf

from fmnist_lit.build import build
from fmnist_lit.dashboard.evaluated import EvaluatedSplit, show_confusion, show_mistakes, show_precision_recall
from fmnist_lit.dashboard.inside import (
    NUM_IMAGES,
    look_inside,
    show_dead_units,
    show_gradient_norms,
    show_histograms,
)
from fmnist_lit.dashboard.pictures import show_first_layer, show_training_images
from fmnist_lit.dashboard.projector import MOMENTS, write_projection
from fmnist_lit.data.batches import EvaluationBatches
from fmnist_lit.loggers.tensorboard import TensorBoardLogger
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.table import SweepTable
from fmnist_lit.trained.data import open_data
from fmnist_lit.trained.load import load_trained, require_buildable

SUFFIX = ".checkpoint"  # of the event files that are drawn here


def draw_best(table: SweepTable, num: int) -> list[Job]:
    """Draw the dashboards of the best ``num`` configurations, of each the seed with the best figure.

    Returns:
        The jobs that have a dashboard now; one that was trained with it keeps that.

    Raises:
        RuntimeError: if a checkpoint or the data set is missing or damaged.
        ConfigError: if a checkpoint describes what no run could have.
    """
    column, cost = table.criterion.column, table.criterion.cost
    best = [min(group.counted, key=lambda job: cost(job.figure(column) or 0.0)) for group in table.ranked[:num]]
    for job in best:
        if "pictures" not in job.config.get("callbacks", {}):
            draw_from_checkpoint(job.run_dir, job.results.get("best_epoch") or job.results["epochs"])
    return best


def draw_from_checkpoint(run_dir: Path, epoch: int) -> None:
    """Draw what can be known from a run's tested checkpoint into its folder, in place of an earlier drawing.

    Args:
        run_dir: of a completed run.
        epoch: that the checkpoint is of.
    """
    trained = load_trained(run_dir)
    require_buildable(trained.configuration, "loss")
    data = open_data(trained)
    data.setup()
    split = "val" if len(data.val_images) else "test"
    images, model = getattr(data, f"{split}_images"), trained.model
    dtype = next(model.parameters()).dtype
    with torch.no_grad():
        logits = torch.cat([model(pixels.to(dtype)) for pixels, _ in EvaluationBatches(data, images)])
    training = data.train_images[:NUM_IMAGES]
    view = look_inside(
        model.requires_grad_(True),
        build(OmegaConf.create(trained.configuration["loss"])),
        training.labels,
        *(data.scale(part.pixels).to(dtype) for part in (training, images[:NUM_IMAGES])),
    )
    answers = EvaluatedSplit(split, images, data.classes, logits.softmax(dim=1).float().numpy())

    for earlier in run_dir.glob(f"events.out.tfevents.*{SUFFIX}"):
        earlier.unlink()
    logger = TensorBoardLogger(run_dir, suffix=SUFFIX)
    show_training_images(logger, data, epoch)
    show_first_layer(logger, model, epoch)
    for show in (show_confusion, show_mistakes, show_precision_recall):
        show(logger, answers, epoch)
    for show_inside in (show_histograms, show_dead_units, show_gradient_norms):
        show_inside(logger, view, epoch)
    logger.experiment.close()
    write_projection(run_dir, MOMENTS[1], model, data, NUM_IMAGES)
