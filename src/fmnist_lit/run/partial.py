"""Whether the figures of a run are those of a whole run on all the images of their split, or partial, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from fmnist_lit.config.check import as_typed
from fmnist_lit.data import FashionMNISTDataModule

OPTIONS = ("fast_dev_run", "overfit_batches", "limit_train_batches", "limit_val_batches", "limit_test_batches")


@dataclass(frozen=True)
class Coverage:
    """How many images of each split there are, and how many of them the Trainer takes in an epoch.

    Attributes:
        all, taken: by ``train``, ``val`` and ``test``.
        options: the Trainer's options that leave some out, as they were given.
        debug: the debug preset that the run is under; its figures are for nobody to compare.
    """

    all: Mapping[str, int]
    taken: Mapping[str, int]
    options: str
    debug: str | None = None

    @property
    def partial(self) -> str | None:
        """Why the figures are partial; None if they are not."""
        if self.debug:
            return f"debug={self.debug}"
        return self.options or None if self.taken != self.all else None

    def __str__(self) -> str:
        """``128 of 55000 training, 5000 validation, 10000 test images``."""
        words = {"train": "training", "val": "validation", "test": "test"}
        shown = [
            f"{total if self.taken[split] == total else f'{self.taken[split]} of {total}'} {words[split]}"
            for split, total in self.all.items()
        ]
        return f"{', '.join(shown)} images{f' ({self.partial})' if self.partial else ''}"


def coverage(
    trainer: Trainer, datamodule: FashionMNISTDataModule, options: Mapping[str, Any], debug: str | None = None
) -> Coverage:
    """What of a data set a run will see.

    Args:
        trainer: with its limits.
        datamodule: of the run, set up.
        options: of lightning.Trainer, as they were given.
        debug: the preset, if the run is under one.
    """
    given = {name: options[name] for name in OPTIONS if options.get(name) is not None and options[name] is not False}
    train = datamodule.train_dataloader()
    val, test = (datamodule.evaluation_batches(split) for split in ("val", "test"))
    test_limit = trainer.limit_val_batches if "test" in datamodule.watched else trainer.limit_test_batches
    whole = {"train": train.num_samples, "val": len(val.images), "test": len(test.images)}
    taken = {
        "train": train.images_within(trainer.limit_train_batches),
        "val": val.images_within(trainer.limit_val_batches) if len(val.images) else 0,
        "test": test.images_within(test_limit),
    }
    named = ", ".join(f"trainer.{name}={as_typed(value)}" for name, value in given.items())
    return Coverage(whole, taken, named, debug)


def counted_partial(expected: Coverage, counted: Mapping[str, int]) -> str | None:
    """As ``Coverage.partial``, and for figures that turn out to be of fewer images than was expected."""
    fewer = [
        f"{number} of {expected.all[split]} {split} images were evaluated"
        for split, number in counted.items()
        if split in ("val", "test") and number < expected.all[split]
    ]
    return expected.partial or "; ".join(fewer) or None
