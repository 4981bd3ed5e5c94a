"""What our loggers have in common."""

from typing import Any

from lightning.pytorch.loggers import Logger

SPLITS = ("train", "val", "test")


class RunLogger(Logger):
    """A Lightning logger that gets one call an epoch: figures by TensorBoard tag, and the epoch (from 1) as step."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass
