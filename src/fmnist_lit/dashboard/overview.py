"""What every run shows in TensorBoard: its running loss, one chart of all splits, what it is, and its model's graph."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
import yaml
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, LightningModule, Trainer

from fmnist_lit.classifier import Classifier
from fmnist_lit.config.rules import title_of
from fmnist_lit.dashboard.graph import draw_graph
from fmnist_lit.loggers.tensorboard import RUNNING_LOSS, tensorboards
from fmnist_lit.run.names import config_words, shell_command

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger(__name__)

# The charts of the Custom Scalars tab, and the tags in them
CHARTS = {
    "accuracy: training, validation, test": "^accuracy/(train|val|test)$",
    "loss: training, validation, test": "^loss/(train|val|test)$",
    "running loss, by optimiser step": f"^{RUNNING_LOSS}$",
}


class Overview(Callback):
    """What costs nothing that can be measured; of several ranks the first writes.

    ``loss/running`` has a point every 50 batches, or every 4096 images where those are fewer, and one at the end of an
    epoch: the mean loss of the images since the point before, of the first rank's share.

    Args:
        graph: whether to draw the model's graph.
    """

    copes_with_chunks = True

    def __init__(self, graph: bool = True) -> None:
        self.graph = graph

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        for logger in tensorboards(trainer):
            writer = logger.experiment
            layout = {title: ["Multiline", [tags]] for title, tags in CHARTS.items()}
            writer.add_custom_scalars({"overview": layout})
            say_what_it_is(writer, module.hparams)
            if self.graph:
                add_graph(writer, module)
            writer.flush()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        assert isinstance(module, Classifier)
        progress = module.progress
        if module.epoch_is_finished:
            progress.end_running()
        if not progress.running:
            return
        before_epoch = trainer.global_step - progress.steps
        for logger in tensorboards(trainer):
            for step, loss in progress.running:
                logger.log_metrics({RUNNING_LOSS: float(loss)}, before_epoch + step)
        progress.running.clear()


def say_what_it_is(writer: "SummaryWriter", configuration: Mapping[str, Any]) -> None:
    """Write the data set's name, the command and the whole configuration as text."""
    content = yaml.safe_dump(dict(configuration), sort_keys=False, allow_unicode=True)
    title = title_of(configuration["dataset"])
    writer.add_text("run", f"{title}\n\n{fenced(command())}")
    writer.add_text("configuration", fenced(content, "yaml"))


def fenced(text: str, language: str = "") -> str:
    """Text that Markdown shows as it is."""
    return f"```{language}\n{text.rstrip()}\n```"


def command() -> str:
    """The command line that does the same; without Hydra, how Python was started is all that is known."""
    own = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    return shell_command(["python", "-m", "fmnist_lit", *config_words(), *own])


def add_graph(writer: "SummaryWriter", module: Classifier) -> None:
    """Draw the model's graph. The model may be anybody's: where that fails, there is none."""
    from fmnist_lit.loggers.protocol import Event

    try:
        graph = draw_graph(module.model, torch.zeros(1, 1, 28, 28).to(next(module.model.parameters())))
    except Exception as error:  # anybody's code may raise anything
        log.debug("No graph of the model: %s", error)
        return
    writer.file_writer.add_event(Event(graph_def=graph.SerializeToString()))  # type: ignore[attr-defined]
