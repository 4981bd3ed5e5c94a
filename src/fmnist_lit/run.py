"""One Hydra job: a run whose status is on disk whatever happens to it."""

import logging
import math
import os
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fmnist_lit import config
from fmnist_lit.files import write_json

log = logging.getLogger(__name__)

EXIT_CODES = {"completed": 0, "diverged": 1, "failed": 1}


FIGURES = ("test_accuracy", "test_loss", "val_accuracy", "val_loss", "train_accuracy", "train_loss", "best_epoch")


def run(cfg: DictConfig) -> float:
    """Train as ``cfg`` says and leave ``results.json`` with the status.

    Returns:
        The validation accuracy, for sweepers that optimise one; NaN if there is none.
    """
    run_dir = Path(cfg.run_dir)
    results = {"status": "running", **dict.fromkeys(FIGURES), "seed": cfg.seed}
    results["started"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    write_json(run_dir / "results.json", results)
    try:
        config.check(cfg)  # again: what could not be resolved before there was a run folder is known now
        from fmnist_lit.classifier import DivergedError
        from fmnist_lit.train import train

        try:
            results |= {"status": "completed", **train(cfg)}
        except DivergedError as error:
            results |= {"status": "diverged", "diverged_step": error.step}
            log.error("Diverged: %s. A lower optimizer.lr than %g usually helps.", error, cfg.optimizer.lr)
    except Exception as error:
        results |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        log.error("Failed: %s", results["error"], exc_info="HYDRA_FULL_ERROR" in os.environ)
    write_json(run_dir / "results.json", results)
    if results["status"] == "completed":
        log.info("%s", summary(run_dir, results))
    return math.nan if results["val_accuracy"] is None else results["val_accuracy"]


def summary(run_dir: Path, results: dict[str, Any]) -> str:
    """What a person wants to know at the end of a run."""
    data = config.DATASETS[results["dataset"]]
    shown = os.path.relpath(run_dir)
    chosen = "" if results["best_epoch"] is None else f", weights of epoch {results['best_epoch']} (best on validation)"
    lines = [
        f"{data}{chosen}",
        f"  test accuracy {100 * results['test_accuracy']:.2f} %, average loss {results['test_loss']:.4f}",
        f"  run folder    {shown}",
        f"  curves        tensorboard --logdir {Path(shown).parts[0]}",
    ]
    return "\n".join(lines)
