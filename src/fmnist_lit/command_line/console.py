"""Where log lines go on the screen."""

import copy
import logging
import os
import sys
import textwrap
from pathlib import Path
from typing import TextIO

from hydra.core.hydra_config import HydraConfig

from fmnist_lit.processes import workers


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes to whatever ``sys.stdout`` is at the time, so that lines appear above a live progress bar.

    A job beside others says which one it is.
    Tracebacks are for train.log; ``HYDRA_FULL_ERROR=1`` shows them here as well.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # the base class sets it once
        return sys.stdout

    def format(self, record: logging.LogRecord) -> str:
        if "HYDRA_FULL_ERROR" not in os.environ:
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        text = super().format(record)
        if workers.beside_others():  # other jobs write there too
            return textwrap.indent(text, f"[{Path(HydraConfig.get().runtime.output_dir).name}] ")
        return text
