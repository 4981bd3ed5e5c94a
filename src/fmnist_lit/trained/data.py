"""The data set that a trained classifier's run used, opened again."""

import os
from pathlib import Path

from omegaconf import OmegaConf

from fmnist_lit.build import build
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.run.resume import as_the_run_had
from fmnist_lit.trained.classifier import TrainedClassifier
from fmnist_lit.trained.load import require_buildable


def open_data(classifier: TrainedClassifier, data_dir: str | Path | None = None) -> FashionMNISTDataModule:
    """The data set that a classifier's run was trained on, and no other; not set up yet.

    Args:
        classifier: of any run.
        data_dir: torchvision's root folder; None for ``$FMNIST_DATA_DIR``, or else where the run had it.

    Raises:
        ConfigError: if the checkpoint describes no data set that a run could have used.
    """
    require_buildable(classifier.configuration, "data")
    options = {key: value for key, value in classifier.configuration["data"].items() if key != "_target_"}
    if isinstance(options["source"], str):
        options["source"] = classifier.dataset
    else:
        options["source"] = build(OmegaConf.create(options["source"]))
    options["data_dir"] = (
        data_dir
        or os.environ.get("FMNIST_DATA_DIR")
        or as_the_run_had(options.get("data_dir", "data"), classifier.source.folder)
    )
    return FashionMNISTDataModule(**options)
