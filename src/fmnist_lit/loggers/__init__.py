"""Where each epoch's figures go: TensorBoard, metrics.csv and the screen. Lightning's own loggers work as well."""

from fmnist_lit.loggers.console import ConsoleLogger
from fmnist_lit.loggers.metrics_csv import CSVLogger
from fmnist_lit.loggers.tensorboard import TensorBoardLogger

__all__ = ["CSVLogger", "ConsoleLogger", "TensorBoardLogger"]
