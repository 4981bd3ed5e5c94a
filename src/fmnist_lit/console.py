"""Where log lines go on the screen."""

import copy
import logging
import os
import sys
from typing import TextIO


class ConsoleHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stdout`` is at the time, so that lines appear above a live progress bar.

    Tracebacks are for train.log; ``HYDRA_FULL_ERROR=1`` shows them here as well.
    """

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout

    def format(self, record: logging.LogRecord) -> str:
        if "HYDRA_FULL_ERROR" not in os.environ:
            record = copy.copy(record)
            record.exc_info = record.exc_text = None
        return super().format(record)
