"""Where each epoch's figures go: TensorBoard, metrics.csv, the screen, a tracker. Lightning's own work as well."""

from fmnist_lit.loggers.console import ConsoleLogger
from fmnist_lit.loggers.metrics_csv import CSVLogger
from fmnist_lit.loggers.mlflow_tracker import MLFlowLogger
from fmnist_lit.loggers.tensorboard import TensorBoardLogger
from fmnist_lit.loggers.weights_and_biases import WandbLogger

__all__ = ["CSVLogger", "ConsoleLogger", "MLFlowLogger", "TensorBoardLogger", "WandbLogger"]
