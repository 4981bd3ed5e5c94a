"""The loops that epoch.py measures, each written the way its people write it.

A contender is a function of a setting and of ``lap``, to be run in a process of its own. It prepares itself, and then
calls ``lap(accuracy)`` before every epoch, with the test accuracy of the last; ``lap`` returns when the next may start
and leaves with SystemExit when there is none. An epoch trains on all training images in a new order and evaluates all
test images. All contenders train the same network on the same images: Flatten, Linear and ReLU twice, Linear; cross
entropy; plain SGD.
"""

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy
from torchvision.transforms import ToTensor

from fmnist_lit.build import count_steps, make_classifier, make_datamodule, make_trainer
from fmnist_lit.data.images import load_images
from fmnist_lit.processes.setup import quieten_lightning

LR = 1e-3
EVAL_BATCH_SIZE = 2000
DATA_DIR = os.environ.get("FMNIST_DATA_DIR", "data")
CONF = Path(__file__).parents[2] / "conf"
UNKNOWN = float("nan")  # the accuracy before the first epoch

Lap = Callable[[float], None]


@dataclass(frozen=True)
class Setting:
    """What the contenders have in common.

    Attributes:
        total_epochs: the most that will be asked of a contender.
        seed: of the initial weights and the order of the images.
        overrides: for fmnist_lit and textbook only, as on its command line.
        source: of the images: ``auto``, ``fashion_mnist`` or ``synthetic``.
    """

    device: str = "cpu"
    batch_size: int = 64
    hidden_size: int = 512
    num_samples: int = 60_000
    precision: str = "32-true"
    total_epochs: int = 1000
    seed: int = 0
    overrides: tuple[str, ...] = ()
    source: str = "auto"

    @property
    def dataset(self) -> str:
        return load_images(self.source, DATA_DIR, 0).name

    def images(self, split: str) -> tuple[Tensor, Tensor]:
        """Pixels (N, 1, 28, 28) uint8 and labels (N,) int64 of ``train`` or ``test``."""
        data = load_images(self.source, DATA_DIR, 0)
        train, test = data.train, data.test
        images = train[: self.num_samples] if split == "train" else test
        return images.pixels, images.labels

    def rows(self, split: str) -> tuple[Tensor, Tensor]:
        """Images (N, 784) float32 in [0, 1] and labels (N,) int64, whole on the device."""
        pixels, labels = self.images(split)
        return pixels.flatten(1).to(self.device, torch.float32).div_(255), labels.to(self.device)

    def model(self) -> nn.Sequential:
        """The network with torch's own initial weights, the same in every contender that takes it from here."""
        torch.manual_seed(self.seed)
        size = self.hidden_size
        layers = nn.Flatten(), nn.Linear(784, size), nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, 10)
        return nn.Sequential(*layers).to(self.device)


def bare(setting: Setting, lap: Lap) -> None:
    """A plain loop over tensors in memory: no item, no copy and no number leaves the device before the epoch ends."""
    model = setting.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=True)
    images, labels = setting.rows("train")
    test_batches = list(zip(*(rows.split(EVAL_BATCH_SIZE) for rows in setting.rows("test")), strict=True))
    autocast = torch.autocast(setting.device, torch.bfloat16, enabled=setting.precision == "bf16-mixed")
    accuracy = UNKNOWN
    while True:
        lap(accuracy)
        loss_sum, correct = torch.zeros(2, device=setting.device)
        for rows in torch.randperm(len(labels), device=setting.device).split(setting.batch_size):
            x, y = images.index_select(0, rows), labels.index_select(0, rows)  # a quarter of the time of images[rows]
            with autocast:
                logits = model(x)
                loss = F.cross_entropy(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.detach() * len(y)
            correct += (logits.argmax(dim=1) == y).sum()
        with autocast:
            figures = torch.stack([loss_sum, correct, *tested(model, test_batches)]).tolist()
        accuracy = figures[-1] / sum(len(y) for _, y in test_batches)


@torch.inference_mode()
def tested(model: nn.Module, batches: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Loss and correct answers summed over batches, (2,)."""
    loss_sum, correct = sums = torch.zeros(2, device=batches[0][0].device)
    for x, y in batches:
        logits = model(x)
        loss_sum += F.cross_entropy(logits, y) * len(y)
        correct += (logits.argmax(dim=1) == y).sum()
    return sums


def graphed(setting: Setting, lap: Lap) -> None:
    """``bare`` with its step, gathering and metrics included, in a CUDA graph that is captured by hand."""
    if setting.device != "cuda":
        raise ImportError("CUDA graphs without CUDA")
    model = setting.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, fused=True)
    images, labels = setting.rows("train")
    test_batches = list(zip(*(rows.split(EVAL_BATCH_SIZE) for rows in setting.rows("test")), strict=True))
    loss_sum, correct = torch.zeros(2, device=setting.device)
    captured_rows = torch.arange(setting.batch_size, device=setting.device)

    def step(rows: Tensor) -> None:
        x, y = images.index_select(0, rows), labels.index_select(0, rows)
        logits = model(x)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum.add_(loss.detach() * len(y))
        correct.add_((logits.argmax(dim=1) == y).sum())

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(captured_rows)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step(captured_rows)
    accuracy = UNKNOWN
    while True:
        lap(accuracy)
        loss_sum.zero_()
        correct.zero_()
        for rows in torch.randperm(len(labels), device=setting.device).split(setting.batch_size):
            if len(rows) == setting.batch_size:
                captured_rows.copy_(rows)
                graph.replay()
            else:
                step(rows)
        figures = torch.stack([loss_sum, correct, *tested(model, test_batches)]).tolist()
        accuracy = figures[-1] / sum(len(y) for _, y in test_batches)


def fmnist_lit(setting: Setting, lap: Lap) -> None:
    """``python -m fmnist_lit experiment=tutorial data.shuffle=true``, with all that a user gets: TensorBoard,
    metrics.csv, train.log, checkpoints, metrics, a progress bar.
    """
    with tempfile.TemporaryDirectory() as folder:
        overrides = [
            "experiment=tutorial",  # trains on all images, evaluates the test images after each epoch
            "data.shuffle=true",
            f"data.source={setting.source}",
            f"data.batch_size={setting.batch_size}",
            f"data.train_size={setting.num_samples}",
            f"model.hidden_sizes=[{setting.hidden_size},{setting.hidden_size}]",
            f"optimizer.lr={LR}",
            f"trainer.accelerator={setting.device}",
            f"trainer.precision={setting.precision}",
            f"trainer.max_epochs={setting.total_epochs + 1}",  # one more, so that the last is held open
            f"run_dir='{folder}'",
            *setting.overrides,
        ]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = compose("config", overrides)
        quieten_lightning()
        log = logging.getLogger("fmnist_lit")  # its line an epoch, which Hydra sends to the screen and to train.log
        log.setLevel(logging.INFO)
        log.propagate = False
        log.handlers = [logging.FileHandler(Path(folder) / "train.log")]
        trainer = make_trainer(cfg)
        datamodule = make_datamodule(cfg, trainer)
        cfg.total_steps = count_steps(trainer, datamodule, cfg.trainer)
        torch.manual_seed(setting.seed)
        classifier = make_classifier(cfg, instantiate(cfg.model), datamodule)
        trainer.callbacks.append(Laps(lap, lambda: classifier.figures.get("accuracy/test", UNKNOWN)))
        trainer.fit(classifier, datamodule)


def textbook(setting: Setting, lap: Lap) -> None:
    """``fmnist_lit`` with the textbook LightningModule, which Lightning calls at every step."""
    fmnist_lit(replace(setting, overrides=(*setting.overrides, "trainer.steps_per_batch=1")), lap)


def tutorial(setting: Setting, lap: Lap) -> None:
    """The optimisation tutorial's train loop and test loop, without their print."""
    train_batches, test_batches = loader(setting, "train"), loader(setting, "test")
    model, loss_fn = setting.model(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    accuracy = UNKNOWN
    while True:
        lap(accuracy)
        model.train()
        for batch, (images, labels) in enumerate(train_batches):
            images, labels = images.to(setting.device), labels.to(setting.device)
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if batch % 100 == 0:
                loss = loss.item()
        model.eval()
        test_loss, correct = 0.0, 0.0
        with torch.no_grad():
            for images, labels in test_batches:
                images, labels = images.to(setting.device), labels.to(setting.device)
                logits = model(images)
                test_loss += loss_fn(logits, labels).item()
                correct += (logits.argmax(1) == labels).type(torch.float).sum().item()
        accuracy = correct / len(test_batches.dataset)


def template(setting: Setting, lap: Lap) -> None:
    """Lightning the way the popular templates use it: DataLoader, torchmetrics and self.log at every step, a progress
    bar.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            accelerator=setting.device,
            devices=1,
            max_epochs=setting.total_epochs + 1,
            logger=[TensorBoardLogger(folder), CSVLogger(folder)],
            callbacks=[
                ModelCheckpoint(f"{folder}/checkpoints", monitor="val/acc", mode="max", save_last=True),
                RichProgressBar(),
            ],
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        module = TemplateModule(setting.model().cpu())
        trainer.callbacks.append(Laps(lap, lambda: float(trainer.callback_metrics.get("val/acc", UNKNOWN))))
        trainer.fit(module, loader(setting, "train"), loader(setting, "test"))


class TemplateModule(LightningModule):
    """The LightningModule of ``template``."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.loss = nn.CrossEntropyLoss()
        self.metrics = nn.ModuleDict()
        for split in ("train_", "val_"):  # "train" alone is a method of a ModuleDict
            self.metrics[split] = nn.ModuleDict({"loss": MeanMetric(), "acc": MulticlassAccuracy(10, average="micro")})

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=LR)

    def step(self, split: str, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        logits = self.model(images)
        loss = self.loss(logits, labels)
        metrics = self.metrics[f"{split}_"]
        metrics["loss"](loss)
        metrics["acc"](logits.argmax(dim=1), labels)
        self.log(f"{split}/loss", metrics["loss"], on_step=split == "train", on_epoch=True, prog_bar=True)
        self.log(f"{split}/acc", metrics["acc"], on_step=False, on_epoch=True, prog_bar=True)
        return loss

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        return self.step("train", batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        self.step("val", batch)


def jax(setting: Setting, lap: Lap) -> None:
    """An epoch jitted as one scan over its batches."""
    os.environ["NPROC"] = str(torch.get_num_threads())  # the size of XLA's thread pool
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax
    import jax.numpy as jnp

    if setting.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        raise ImportError("jax without CUDA")
    jax.config.update("jax_default_matmul_precision", "highest")  # float32, as torch's default
    layers = [layer for layer in setting.model().cpu() if isinstance(layer, nn.Linear)]
    params = [(jnp.array(layer.weight.detach().T), jnp.array(layer.bias.detach())) for layer in layers]
    data = [jnp.array(rows.cpu()) for split in ("train", "test") for rows in setting.rows(split)]

    def loss_and_correct(params, x, y):
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        log_p = jax.nn.log_softmax(x @ params[-1][0] + params[-1][1])
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean(), (log_p.argmax(axis=1) == y).sum()

    @partial(jax.jit, donate_argnums=0)
    def epoch(params, key, images, labels, test_images, test_labels):
        def step(params, rows):
            objective = jax.value_and_grad(loss_and_correct, has_aux=True)
            (loss, correct), grads = objective(params, images[rows], labels[rows])
            return jax.tree.map(lambda p, g: p - LR * g, params, grads), (loss * len(rows), correct)

        order = jax.random.permutation(key, len(labels))
        whole = len(order) - len(order) % setting.batch_size
        params, sums = jax.lax.scan(step, params, order[:whole].reshape(-1, setting.batch_size))
        sums = jax.tree.map(jnp.sum, sums)
        if whole < len(order):  # a last, short batch
            params, rest = step(params, order[whole:])
            sums = jax.tree.map(jnp.add, sums, rest)
        return params, sums, loss_and_correct(params, test_images, test_labels)

    accuracy = UNKNOWN
    for key in jax.random.split(jax.random.key(setting.seed), setting.total_epochs + 1):
        lap(accuracy)
        params, _, (_, correct) = jax.block_until_ready(epoch(params, key, *data))
        accuracy = float(correct) / len(data[-1])


def sklearn(setting: Setting, lap: Lap) -> None:
    """scikit-learn's MLPClassifier with plain SGD, from its own (larger) initial weights; on the CPU only."""
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    if setting.device != "cpu":
        raise ImportError("scikit-learn has no GPU")
    images, labels = (rows.numpy() for rows in setting.rows("train"))
    test_images, test_labels = (rows.numpy() for rows in setting.rows("test"))
    sizes = (setting.hidden_size, setting.hidden_size)
    options = {"solver": "sgd", "momentum": 0.0, "alpha": 0.0, "learning_rate_init": LR, "random_state": setting.seed}
    model = MLPClassifier(sizes, batch_size=setting.batch_size, **options)
    accuracy = UNKNOWN
    with threadpool_limits(torch.get_num_threads(), "blas"):
        while True:
            lap(accuracy)
            model.partial_fit(images, labels, classes=range(10))
            accuracy = model.score(test_images, test_labels)


def matmul(setting: Setting, lap: Lap) -> None:
    """The matrix products of an epoch and nothing else, at torch's own rate."""
    images, test_images = setting.rows("train")[0], setting.rows("test")[0]
    w1, w2, w3 = (layer.weight.detach() for layer in setting.model() if isinstance(layer, nn.Linear))
    while True:
        lap(UNKNOWN)
        with torch.inference_mode():
            for x in images.split(setting.batch_size):
                h1 = x @ w1.T
                h2 = h1 @ w2.T
                grad3 = h2 @ w3.T
                grad3.T @ h2
                grad2 = grad3 @ w3
                grad2.T @ h1
                grad1 = grad2 @ w2
                grad1.T @ x
            for x in test_images.split(EVAL_BATCH_SIZE):
                x @ w1.T @ w2.T @ w3.T


class Images(Dataset):
    """Items made as torchvision.datasets.FashionMNIST makes them: a PIL image from the tensor, then the transform."""

    def __init__(self, pixels: Tensor, labels: Tensor) -> None:
        self.pixels, self.labels, self.transform = pixels.squeeze(1), labels, ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index].numpy(), mode="L")), int(self.labels[index])


def loader(setting: Setting, split: str) -> DataLoader:
    """The DataLoader that comes to mind first."""
    return DataLoader(Images(*setting.images(split)), batch_size=setting.batch_size, shuffle=split == "train")


class Laps(Callback):
    """Calls ``lap`` at the start of every epoch of a fit.

    Between two laps lies everything that belongs to one epoch and nothing else: all batches with all hooks, the
    evaluation, the metrics, what the loggers write, the checkpoint, and the Trainer's own work around them; not the
    set-up and the teardown of the fit.
    """

    def __init__(self, lap: Lap, accuracy: Callable[[], float]) -> None:
        self.lap, self.accuracy = lap, accuracy

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.lap(self.accuracy())
