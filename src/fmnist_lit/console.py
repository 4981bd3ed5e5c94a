"""Where log lines go on the screen."""

import logging
import sys
from typing import TextIO


class ConsoleHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stdout`` is at the time, so that lines appear above a live progress bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stdout
