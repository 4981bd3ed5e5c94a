"""What other packages reach on the same images, and for how many CPU seconds: scikit-learn, XGBoost, JAX.

    uv run --with jax,scikit-learn,xgboost python scripts/benchmark/peers.py --output docs/results/peers
    uv run --with xgboost,scikit-learn python scripts/benchmark/peers.py xgboost --num-samples 2000

Each trains on the 60,000 images with the settings below, which nobody tuned here, and then reads the 10,000 test images
once; the JAX loop reads them after every epoch, as the tutorial does, with the number of epochs fixed before. Every
seed has a process of its own, one after another, each with one thread. Counted are the CPU seconds of that process
while it trains, whatever else the machine does. A peer whose package is missing is left out, with a line that says so.
The data is what data=auto finds, through FMNIST_DATA_DIR or in data/. scripts/make_results.py shows docs/results/peers
in RESULTS.md.
"""

import argparse
import multiprocessing
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class
from reference_loops import LR, Lap, Setting, jax

from fmnist_lit.run.files import write_json
from fmnist_lit.run.provenance import software
from fmnist_lit.sweep.verdict import describe_settings

EPOCHS = 10  # the tutorial's
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
MLP = "sklearn.neural_network.MLPClassifier"
PLAIN_SGD = {"solver": "sgd", "momentum": 0.0, "alpha": 0.0, "learning_rate_init": LR, "batch_size": Setting.batch_size}


@dataclass(frozen=True)
class Peer:
    """A model of another package.

    Attributes:
        title: what it is.
        settings_of: whose settings these are, for a table.
        packages: the distributions that decide its figures.
        settings: the arguments of a classifier's class; of a loop, its number of ``epochs``.
        classifier: the path of a class with scikit-learn's ``fit`` and ``predict``.
        loop: one of reference_loops.py, in place of a classifier.
        num_seeds: fewer for what takes minutes.
    """

    title: str
    settings_of: str
    packages: tuple[str, ...]
    settings: dict[str, Any]
    classifier: str = ""
    loop: Callable[[Setting, Lap], None] | None = None
    num_seeds: int = 1


PEERS = {
    "jax": Peer(
        "JAX, 784-512-512-10",
        "the tutorial, shuffled",
        ("jax", "jaxlib"),
        {"learning_rate": LR, "batch_size": Setting.batch_size, "epochs": EPOCHS},  # of which it takes the last
        loop=jax,
        num_seeds=3,
    ),
    "sklearn_mlp_sgd": Peer(
        "scikit-learn's MLPClassifier, 784-512-512-10",
        "the tutorial, shuffled; initial weights are scikit-learn's",
        ("scikit-learn", "numpy"),
        {"hidden_layer_sizes": (512, 512), **PLAIN_SGD, "max_iter": EPOCHS},
        MLP,
    ),
    "sklearn_mlp_adam": Peer(
        "scikit-learn's MLPClassifier, 784-512-512-10",
        "scikit-learn's own, 10 epochs",
        ("scikit-learn", "numpy"),
        {"hidden_layer_sizes": (512, 512), "max_iter": EPOCHS},
        MLP,
        num_seeds=3,
    ),
    "sklearn_mlp_256_128_100": Peer(
        "scikit-learn's MLPClassifier, 784-256-128-100-10",
        "[heitorrapela](https://github.com/heitorrapela/fashion-mnist-mlp) (88.3 in Zalando's table), "
        "without the dropout, which scikit-learn has not",
        ("scikit-learn", "numpy"),
        {
            "hidden_layer_sizes": (256, 128, 100),
            "activation": "tanh",
            **PLAIN_SGD,
            "learning_rate_init": 0.01,
            "momentum": 0.975,
            "max_iter": 100,
            "n_iter_no_change": 100,  # all of them
        },
        MLP,
    ),
    "sklearn_hist_gradient_boosting": Peer(
        "scikit-learn's HistGradientBoostingClassifier",
        "scikit-learn's own: 100 rounds",
        ("scikit-learn", "numpy"),
        {"early_stopping": False},  # which would hold out a tenth of the images
        "sklearn.ensemble.HistGradientBoostingClassifier",
    ),
    "xgboost": Peer(
        "XGBoost",
        "[anktplwl91](https://github.com/anktplwl91/fashion_mnist) (89.8 in Zalando's table), "
        "with 150 rounds at a rate of 0.3 for its 600 at 0.08",
        ("xgboost", "numpy"),
        {
            "tree_method": "hist",
            "n_estimators": 150,
            "learning_rate": 0.3,
            "max_depth": 6,
            "subsample": 0.8,
            "colsample_bytree": 0.8,
            "reg_alpha": 8,
            "reg_lambda": 2,
            "n_jobs": 1,
        },
        "xgboost.XGBClassifier",
    ),
}


def fit_classifier(peer: Peer, setting: Setting) -> tuple[float, float]:
    """Train on the training images, and then read the test images; test accuracy and CPU seconds of training."""
    model = get_class(peer.classifier)(**peer.settings, random_state=setting.seed)
    (images, labels), (test_images, test_labels) = ([t.numpy() for t in setting.rows(s)] for s in ("train", "test"))
    warnings.filterwarnings("ignore", "Stochastic Optimizer: Maximum iterations")  # which are the epochs asked for
    start = time.process_time()
    model.fit(images, labels)
    seconds = time.process_time() - start
    return float((model.predict(test_images) == test_labels).mean()), seconds


def run_loop(peer: Peer, setting: Setting) -> tuple[float, float]:
    """The last test accuracy of a loop and the CPU seconds of its epochs, in which it compiles and evaluates, too."""
    start, accuracies = 0.0, []

    def lap(accuracy: float) -> None:
        nonlocal start
        start = start or time.process_time()
        accuracies.append(accuracy)
        if len(accuracies) > peer.settings["epochs"]:
            sys.exit()

    with suppress(SystemExit):
        peer.loop(setting, lap)
    return accuracies[-1], time.process_time() - start


def measure(peer: Peer, setting: Setting) -> dict[str, Any]:
    """The figures of one seed, in this process."""
    torch.set_num_threads(1)
    accuracy, seconds = (run_loop if peer.loop else fit_classifier)(peer, setting)
    return {
        "seed": setting.seed,
        "dataset": setting.dataset,
        "train_size": len(setting.images("train")[1]),
        "test_accuracy": accuracy,
        "fit_cpu_seconds": round(seconds, 3),
        "num_threads": 1,
        "provenance": {**software(), "packages": versions(peer)},
    }


def versions(peer: Peer) -> dict[str, str]:
    """Of the packages that decide a peer's figures.

    Raises:
        PackageNotFoundError: one is missing.
    """
    return {name: metadata.version(name) for name in peer.packages}


def measure_apart(peer: Peer, setting: Setting) -> dict[str, Any]:
    """``measure`` in a process of its own, which begins with one thread."""
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measure, peer, setting).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="*", metavar="NAME", help=f"of {', '.join(PEERS)}; all if none is given")
    parser.add_argument("--num-samples", type=int, default=60_000, help="training images, for a try")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write NAME.json of each there")
    args = parser.parse_args()
    if unknown := [name for name in args.peers if name not in PEERS]:
        parser.error(f"no peer {unknown[0]}: choose from {', '.join(PEERS)}")
    for name in args.peers or PEERS:
        peer, runs = PEERS[name], []
        try:
            versions(peer)
        except metadata.PackageNotFoundError as error:
            print(f"skipping {name}: no package {error.name}", flush=True)
            continue
        for seed in range(peer.num_seeds):
            runs.append(measure_apart(peer, Setting(num_samples=args.num_samples, seed=seed)))
            accuracy, seconds = runs[-1]["test_accuracy"], runs[-1]["fit_cpu_seconds"]
            print(f"{name} seed {seed}: {100 * accuracy:.2f} %, {seconds:.1f} CPU seconds", flush=True)
        if args.output:
            write_json(args.output / f"{name}.json", result(name, peer, runs))


def result(name: str, peer: Peer, runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of a peer."""
    return {
        "command": shlex.join(["python", "scripts/benchmark/peers.py", name]),
        "title": peer.title,
        "settings_of": peer.settings_of,
        "settings": describe_settings(peer.settings),
        "runs": runs,
    }


if __name__ == "__main__":
    main()
