"""Lightning's Rich progress bar, counting batches where the Trainer counts chunks of them, and epochs from 1."""

import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from fmnist_lit.classifier import Classifier
from fmnist_lit.processes import workers

SECONDS_BETWEEN = 0.2  # updates of a notebook's bar; each is a message to the browser


class ProgressBar(RichProgressBar):
    """Shown in a terminal, and in a notebook in its way; elsewhere the log's line an epoch is enough."""

    copes_with_chunks = True

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=refresh_rate)
        if sys.stdout is None or not sys.stdout.isatty() or workers.beside_others():  # other jobs write there too
            self.disable()
        self.in_notebook = NotebookBar() if in_notebook() and not workers.beside_others() else None

    @property
    def total_train_batches(self) -> int:
        batches: int = self.trainer.datamodule.batches_per_epoch  # type: ignore[attr-defined]  # set by Trainer.fit
        return batches

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, chunk: Any, chunk_index: int
    ) -> None:
        assert isinstance(module, Classifier)
        super().on_train_batch_end(trainer, module, outputs, chunk, module.progress.batches - 1)
        if self.in_notebook and self.in_notebook.is_due():
            done, total = module.progress.batches, self.total_train_batches
            epoch = self._get_train_description(trainer.current_epoch)
            loss = self.get_metrics(trainer, module)["loss"]
            self.in_notebook.show(done / total, f"{epoch}, {done} of {total} batches, loss {loss}")

    def teardown(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        super().teardown(trainer, module, stage)
        self.clear_notebook()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, module, exception)
        self.clear_notebook()

    def clear_notebook(self) -> None:
        """Leave no bar behind; the lines of the epochs stay."""
        if self.in_notebook:
            self.in_notebook.clear()

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        assert isinstance(module, Classifier)
        return {**super().get_metrics(trainer, module), "loss": f"{float(module.progress.recent_loss):.3f}"}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"


class NotebookBar:
    """A bar that a notebook shows and updates in its place; plain HTML, which needs no widgets."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.shown = 0.0

    def is_due(self) -> bool:
        """Whether the last update is long enough ago."""
        return time.monotonic() >= self.shown + SECONDS_BETWEEN

    def show(self, share: float, words: str) -> None:
        """Show how much is done, as a share of 1, and in words."""
        self.shown = time.monotonic()
        self.update(f'<progress value="{share:.3f}" style="width:16em"></progress> {words}')

    def clear(self) -> None:
        """Take it away, if it is there."""
        if self.handle is not None:
            self.update("")

    def update(self, html: str) -> None:
        """Put something else in its place."""
        from IPython.display import HTML, display

        if self.handle is None:
            self.handle = display(HTML(html), display_id=True)
        else:
            self.handle.update(HTML(html))


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, such as Jupyter's, Colab's or VS Code's."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
