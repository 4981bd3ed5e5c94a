"""Lightning's Rich progress bar, counting batches where the Trainer counts chunks of them."""

import sys

from lightning.pytorch.callbacks import RichProgressBar


class ProgressBar(RichProgressBar):
    """Shown in a terminal only; elsewhere the log's line an epoch is enough."""

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate)
        if not sys.stdout.isatty():
            self.disable()
