"""What is wrong with a run by the look of it inside, said once, with the page of the guide that explains it."""

import logging
import math
from collections.abc import Iterator, Mapping

log = logging.getLogger(__name__)

PAGE = "docs/guide/learning_rate_and_schedules.md"
DEAD, DIED = 0.5, 0.1  # the share of a layer's units, and how much of it was still alive before training
VANISHING = 1e-3  # the first layer's gradient as a part of the last one's
EXPLODING = 100.0  # times the gradient before training
STILL, EPOCHS_OF_STILL = 0.99, 2  # the loss as a part of that before training, and after how many epochs


class Symptoms:
    """Warns of each kind of symptom the first time that it is seen.

    The first look, which is before training unless a run goes on, is what later ones are compared to.
    """

    def __init__(self) -> None:
        self.first: tuple[int, float, float, Mapping[str, float]] | None = None
        self.said: set[str] = set()

    def notice(
        self, epoch: int, images: int, loss: float, norms: Mapping[str, float], dead: Mapping[str, float]
    ) -> None:
        """Look at a run after ``epoch`` epochs.

        Args:
            epoch: 0 is before training.
            images: that ``dead`` is of.
            loss: of the same training images each time.
            norms: of the gradient of each weight matrix, in the order of the layers, and of ``all``.
            dead: the share of dead units of each layer of ReLUs.
        """
        if self.first is None:
            self.first = epoch, loss, norms["all"], dead
            return
        for section, words in self.symptoms(epoch, images, loss, norms, dead):
            if section not in self.said:
                self.said.add(section)
                log.warning("WARNING: after epoch %d %s. %s#%s", epoch, words, PAGE, section)

    def symptoms(
        self, epoch: int, images: int, loss: float, norms: Mapping[str, float], dead: Mapping[str, float]
    ) -> Iterator[tuple[str, str]]:
        """The section of the guide for each symptom, and what is seen."""
        assert self.first is not None
        first_epoch, first_loss, first_norm, alive_once = self.first
        worst = max(dead, key=lambda name: dead[name], default=None)
        if worst is not None and dead[worst] >= DEAD and dead[worst] >= alive_once.get(worst, 0.0) + DIED:
            yield (
                "dying-units",
                f"{100 * dead[worst]:.0f} % of the units of {worst} are dead: 0 for each of {images} images",
            )
        layers = [name for name in norms if name != "all"]
        if len(layers) > 1 and norms[layers[0]] < VANISHING * norms[layers[-1]]:
            part = norms[layers[-1]] / max(norms[layers[0]], 1e-30)
            yield (
                "vanishing-gradients",
                f"gradients vanish: that of {layers[0]} is 1/{part:.0f} of that of {layers[-1]}",
            )
        if not math.isfinite(norms["all"]) or norms["all"] > EXPLODING * first_norm:
            yield (
                "exploding-gradients",
                f"gradients explode: their norm is {norms['all']:.3g}, it was {first_norm:.3g}",
            )
        if epoch >= first_epoch + EPOCHS_OF_STILL and loss > STILL * first_loss:
            yield "a-loss-that-stands-still", f"the loss stands still: it is {loss:.4g}, and was {first_loss:.4g}"
