"""What each option of callbacks=dashboard costs, as a share of an epoch.

    uv run python scripts/benchmark/dashboard.py --threads 1
    uv run python scripts/benchmark/dashboard.py --alternate --repeats 5

The first times each option within one run of the tutorial's network, in CPU seconds, which a busy machine stretches
little: medians over the epochs, beside the mean of the epochs themselves. The second lets whole epochs take turns, as
epoch.py does: without anything of this, with what is on by default, and with the dashboard. The data is what data=auto
finds.
"""

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from epoch import circumstances, measure
from reference_loops import Setting

import fmnist_lit
from fmnist_lit.dashboard import inside, overview, pictures, projector

# By option, what does its work: an object and the name of a function there
PARTS: dict[str, tuple[Any, str]] = {
    "overview (by default)": (overview.Overview, "on_train_batch_end"),
    "overview.graph and text (a run)": (overview.Overview, "on_fit_start"),
    "pictures.training_images": (pictures, "show_training_images"),
    "pictures.weights": (pictures, "show_first_layer"),
    "pictures.confusion_matrix": (pictures, "show_confusion"),
    "pictures.mistakes": (pictures, "show_mistakes"),
    "pictures.precision_recall": (pictures, "show_precision_recall"),
    "inside, the look that its options share": (inside, "look_inside"),
    "inside.histograms": (inside, "show_histograms"),
    "inside.dead_units": (inside, "show_dead_units"),
    "inside.gradients": (inside, "show_gradient_norms"),
    "projector (twice a run)": (projector, "write_projection"),
}
VARIANTS = {
    "without": ["~callbacks.overview"],
    "default": [],
    "dashboard": ["callbacks=[default,dashboard]"],
}


def time_options(epochs: int, threads: int | None, overrides: list[str]) -> str:
    """A table of seconds and shares, from one run."""
    seconds: dict[str, list[float]] = defaultdict(list)

    def timed(option: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return work(*args, **kwargs)
            finally:
                seconds[option].append(time.process_time() - start)

        return call

    for option, (owner, name) in PARTS.items():
        setattr(owner, name, timed(option, getattr(owner, name)))
    with tempfile.TemporaryDirectory() as folder:
        run = fmnist_lit.train(
            "callbacks=[default,dashboard]",
            "data.augmentation.shift=1",  # or the training images would be drawn once
            f"trainer.max_epochs={epochs}",
            f"num_threads={threads or 'null'}",
            f"hydra.run.dir={Path(folder, 'run')}",
            *overrides,
        )
        size = sum(file.stat().st_size for file in run.folder.glob("events.out.tfevents.*")) / 1e6
        projected = sum(file.stat().st_size for file in (run.folder / "projector").glob("*")) / 1e6
        total = sum(sum(times) for times in seconds.values())
        epoch = (run.results["fit_cpu_seconds"] - total) / epochs
    lines = [f"an epoch without them: {epoch:.3f} CPU seconds (mean of {epochs})"]
    for option, times in seconds.items():
        if option == "overview (by default)":
            times = [sum(times) / epochs]
        spent = statistics.median(times[1:] if len(times) > 2 else times)  # the first imports and loads
        lines.append(f"{option:42}{1000 * spent:9.1f} ms{100 * spent / epoch:8.2f} % of an epoch")
    lines.append(f"events {size:.2f} MB, projector {projected:.2f} MB after {epochs} epochs")
    return "\n".join(lines)


def alternate(repeats: int) -> str:
    """A table of whole epochs that took turns."""
    setting = replace(Setting(), total_epochs=repeats + 1)
    settings = {f"fmnist_lit {name}": replace(setting, overrides=tuple(words)) for name, words in VARIANTS.items()}
    contenders = measure(settings, 1, repeats)
    base = contenders[0].median
    return "\n".join(f"{c.name:24}{c.median:8.3f} s{100 * (c.median / base - 1):+7.2f} %" for c in contenders)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=6, help="of the run whose options are timed")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    parser.add_argument("--alternate", action="store_true", help="let whole epochs take turns instead")
    parser.add_argument("--repeats", type=int, default=5, help="turns that are counted")
    parser.add_argument("overrides", nargs="*", help="of the run, such as model=cnn")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    print(circumstances(Setting()))
    table = alternate(args.repeats) if args.alternate else time_options(args.epochs, args.threads, args.overrides)
    print(table)


if __name__ == "__main__":
    main()
