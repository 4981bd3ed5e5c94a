"""What an epoch costs here and elsewhere: this project beside a bare loop, the tutorial, a template, JAX, scikit-learn.

    uv run --with jax,scikit-learn python scripts/benchmark/epoch.py --batch-size 64 512 --output outputs/benchmark
    uv run python scripts/benchmark/epoch.py --growth --output outputs/benchmark
    uv run python scripts/benchmark/epoch.py --contenders bare fmnist_lit --threads 1
    uv run python scripts/benchmark/epoch.py --contenders bare fmnist_lit --batch-size 512 --precision bf16-mixed
    uv run python scripts/benchmark/epoch.py --contenders bare fmnist_lit --variant "trainer.matmul_precision=medium"

An epoch is training on the 60,000 images in a new order and evaluating the 10,000 test images; 784-512-512-10 with
ReLU, cross entropy, SGD with lr 1e-3. The contenders (reference_loops.py beside this) take turns, forwards and then
backwards through their list; the first round warms them up and is not counted. Each has a process of its own, which
rests between its turns: in one process, the OpenMP threads of one would make those of another wait in the kernel. It
writes to a terminal that nobody sees, so that progress bars are drawn. A contender whose package is missing is left
out, with a line that says so. The data is what data=auto finds, through FMNIST_DATA_DIR or in data/.
"""

import argparse
import multiprocessing
import os
import pty
import re
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from importlib import metadata
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self

import matplotlib.pyplot as plt
import torch
from reference_loops import Lap, Setting, bare, fmnist_lit, graphed, jax, matmul, sklearn, template, textbook, tutorial

from fmnist_lit.run.provenance import commit

LOOPS = {
    loop.__name__: loop for loop in (bare, graphed, fmnist_lit, textbook, tutorial, template, jax, sklearn, matmul)
}
OURS = ("fmnist_lit", "textbook")
WITH_PRECISION = ("bare", *OURS)
GROWTH = {
    "batch_size": (16, 64, 256, 1024, 4096),
    "hidden_size": (128, 256, 512, 1024),
    "num_samples": (15_000, 30_000, 60_000),
}


@dataclass
class Contender:
    """A loop in a process of its own, what its turns took (seconds an epoch) and the test accuracy after the last."""

    name: str
    process: BaseProcess
    pipe: Connection
    seconds: list[float] = field(default_factory=list)
    accuracy: float = float("nan")

    @classmethod
    def start(cls, name: str, setting: Setting) -> Self:
        """Start the loop and wait until it could begin its first epoch.

        Raises:
            ImportError: a package that it needs is missing.
        """
        ours, theirs = multiprocessing.Pipe()
        screen, terminal = pty.openpty()
        threading.Thread(target=show, args=(screen,), daemon=True).start()
        args = LOOPS[name.split()[0]], setting, torch.get_num_threads(), theirs, os.ttyname(terminal)
        process = multiprocessing.get_context("spawn").Process(target=run, args=args, daemon=True)
        process.start()
        theirs.close()
        contender = cls(name, process, ours)
        contender.wait()
        os.close(terminal)  # the child has it open; with it the screen will end
        return contender

    def wait(self) -> None:
        answer = self.pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        self.accuracy = answer

    def take_turn(self, epochs: int) -> None:
        start = time.perf_counter()
        for _ in range(epochs):
            self.pipe.send("go")
            self.wait()
        self.seconds.append((time.perf_counter() - start) / epochs)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def stop(self) -> None:
        self.pipe.close()
        self.process.join()


def show(screen: int) -> None:
    """A terminal in which nobody looks at the progress bars."""
    with suppress(OSError), open(screen, "rb", buffering=0) as written:  # an OSError where a file would end
        while written.read(4096):
            pass


def run(loop: Callable[[Setting, Lap], None], setting: Setting, num_threads: int, pipe: Connection, tty: str) -> None:
    """The process of a contender: say that an epoch is over, wait for the word to start the next."""
    os.dup2(os.open(tty, os.O_RDWR | os.O_NOCTTY), sys.stdout.fileno())
    torch.set_num_threads(num_threads)

    def lap(accuracy: float) -> None:
        if setting.device == "cuda":
            torch.cuda.synchronize()
        pipe.send(accuracy)
        try:
            pipe.recv()
        except EOFError:  # nobody asks for more
            sys.exit()

    try:
        loop(setting, lap)
    except Exception as error:
        pipe.send(error)


def measure(settings: dict[str, Setting], epochs: int, repeats: int) -> list[Contender]:
    """Let contenders take turns of ``epochs`` epochs: one that is not counted, then ``repeats`` that are.

    What follows a space in a name tells variants of one contender apart.
    """
    contenders = []
    with ExitStack() as stack:
        for name, setting in settings.items():
            try:
                contender = Contender.start(name, setting)
            except ImportError as error:
                print(f"skipping {name}: {error}", flush=True)
                continue
            stack.callback(contender.stop)
            contender.take_turn(epochs)
            contender.seconds.clear()
            contenders.append(contender)
        for turn in range(repeats):
            for contender in contenders[:: -1 if turn % 2 else 1]:
                contender.take_turn(epochs)
                print(f"{turn + 1}/{repeats} {contender.name}: {contender.seconds[-1]:.3f} s", file=sys.stderr)
    return contenders


def compare(setting: Setting, names: Sequence[str], args: argparse.Namespace) -> str:
    """All contenders side by side: a table, and a picture in ``args.output``."""
    settings = dict.fromkeys(names, setting)
    settings |= {f"fmnist_lit {more}": replace(setting, overrides=tuple(more.split())) for more in args.variant}
    contenders = measure(settings, args.epochs, args.repeats)
    medians = {c.name: c.median for c in contenders}
    base, ours = (medians.get(name, float("nan")) for name in ("bare", "fmnist_lit"))
    width = max(len(name) for name in [*medians, "contender"])
    title = f"batch size {setting.batch_size}, {setting.precision}, seconds an epoch over {args.repeats} rounds"
    lines = [title, f"{'contender':{width}}   median      min      max   / bare   / fmnist_lit   test accuracy"]
    for c in contenders:
        accuracy = "" if c.accuracy != c.accuracy else f"{100 * c.accuracy:14.2f} %"
        seconds = f"{c.median:9.3f}{min(c.seconds):9.3f}{max(c.seconds):9.3f}"
        lines.append(f"{c.name:{width}}{seconds}{c.median / base:9.3f}{c.median / ours:15.3f}{accuracy}")
    if args.output:
        figure, axes = plt.subplots(figsize=(8, 1 + 0.4 * len(medians)), layout="constrained")
        spread = [[c.median - min(c.seconds), max(c.seconds) - c.median] for c in contenders]
        colors = ["C1" if name.startswith(OURS) else "C0" for name in medians]
        bars = axes.barh(list(medians), medians.values(), xerr=list(zip(*spread, strict=True)), color=colors, capsize=3)
        axes.bar_label(bars, [f"{seconds:.2f} s" for seconds in medians.values()], padding=6)
        axes.margins(x=0.15)
        axes.invert_yaxis()
        axes.set(title=title, xlabel="median, with minimum and maximum")
        figure.savefig(args.output / f"benchmark_batch_{setting.batch_size}.png", dpi=150)
    return "\n".join(lines)


def grow(setting: Setting, names: Sequence[str], args: argparse.Namespace) -> str:
    """How the cost of an epoch grows with one size at a time: a table, and a picture in ``args.output``."""
    lines = [f"{f'{setting.precision}, seconds an epoch':32}{''.join(f'{name:>12}' for name in names)}"]
    panels = []
    if args.output:
        figure, panels = plt.subplots(1, len(GROWTH), figsize=(12, 4), layout="constrained", sharey=True)
        figure.get_layout_engine().set(wspace=0.06)
    for index, (size, values) in enumerate(GROWTH.items()):
        medians = []
        for value in values:
            results = measure(dict.fromkeys(names, replace(setting, **{size: value})), args.epochs, args.repeats)
            medians.append([contender.median for contender in results])
            lines.append(f"{size.replace('_', ' '):22}{value:10,}{''.join(f'{m:12.3f}' for m in medians[-1])}")
        if args.output:
            panels[index].loglog(values, medians, "o-", label=names)
            panels[index].set(xlabel=size.replace("_", " "), ylabel="seconds an epoch" if index == 0 else "")
            panels[index].set_xticks(values, [f"{value:,}" for value in values])
            panels[index].yaxis.set_major_locator(plt.LogLocator(subs=(1, 2, 5)))
            panels[index].yaxis.set_major_formatter("{x:g}")
            panels[index].minorticks_off()
            panels[index].legend()
            figure.savefig(args.output / "benchmark_growth.png", dpi=150)
    return "\n".join(lines)


def circumstances(setting: Setting) -> str:
    """Hardware, versions, commit and data set, to stand above the tables."""
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    gpu = f"{torch.cuda.get_device_name()}; " if setting.device == "cuda" else ""
    packages = ("torch", "lightning", "jax", "scikit-learn")
    installed = {d.name: d.version for d in metadata.distributions() if d.name in packages}
    return (
        f"{gpu}{cpus[0] if cpus else 'unknown CPU'}, {len(os.sched_getaffinity(0))} cores, "
        f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f} before the start\n"
        f"{', '.join(f'{name} {installed[name]}' for name in packages if name in installed)}; "
        f"commit {commit()}; data: {setting.dataset}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=LOOPS, metavar="NAME", help=f"of {', '.join(LOOPS)}")
    parser.add_argument("--variant", action="append", default=[], metavar="OVERRIDES", help="one more fmnist_lit")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[64])
    parser.add_argument("--precision", choices=("32-true", "bf16-mixed"), default="32-true")
    parser.add_argument("--epochs", type=int, default=1, help="in each turn")
    parser.add_argument("--repeats", type=int, default=5, help="turns that are counted")
    parser.add_argument("--threads", type=int, help="CPU threads of each contender; torch's own choice if not given")
    parser.add_argument("--growth", action="store_true", help="cost against batch, hidden size and number of samples")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write tables and pictures there, too")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
    names = args.contenders or (["bare", "fmnist_lit"] if args.growth else list(LOOPS))
    if args.precision != "32-true":
        print(f"only {', '.join(WITH_PRECISION)} know {args.precision}")
        names = [name for name in names if name in WITH_PRECISION]
    setting = Setting(args.device, args.batch_size[0], precision=args.precision)
    setting = replace(setting, total_epochs=args.epochs * (args.repeats + 1))
    text = circumstances(setting)
    print(text)
    settings = [setting] if args.growth else [replace(setting, batch_size=size) for size in args.batch_size]
    for setting in settings:
        table = (grow if args.growth else compare)(setting, names, args)
        print(f"\n{table}", flush=True)
        text += f"\n\n{table}"
    if args.output:
        (args.output / f"benchmark{'_growth' if args.growth else ''}.txt").write_text(f"{text}\n")


if __name__ == "__main__":
    main()
