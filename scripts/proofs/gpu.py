"""What there is to see on a GPU, in at most seven minutes: tests, runs, epochs, a sweep; gpu.json and gpu.md.

    python scripts/proofs/gpu.py --minutes 7 --output outputs/gpu
    python scripts/proofs/gpu.py --small --output outputs/gpu

On a CPU --small does the same with little data, to try the script. FMNIST_DATA_DIR names the folder of the real data;
without it, all of it is about the synthetic stand-in. Each part is a process of its own: one that fails or takes too
long is in the report with its error (gpu.json has all that it printed), one for which too little time is left is not
begun, and the report is written after each. --parts chooses some.

A machine without a network needs Python 3.12, a torch for its card, this checkout, and wheels of the rest, which a
machine with a network collects:

    echo 'torch==2.11.*' > torch.txt
    uv pip compile pyproject.toml --constraint torch.txt --python-version 3.12 --no-header --no-annotate |
      grep -vE '^(torch=|triton|nvidia|cuda)' > wanted.txt
    python3.12 -m pip wheel --no-deps --wheel-dir wheels --requirement wanted.txt pytest iniconfig pluggy

and on the other:

    python -m pip install --no-index --no-deps wheels/*.whl

The project itself need not be installed, and this script needs nothing but Python, so that it can say what is missing.
"""

import argparse
import csv
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA_DIR = os.environ.get("FMNIST_DATA_DIR", "data")
HAS_REAL_DATA = any(Path(DATA_DIR, "FashionMNIST", "raw").glob("train-images-idx3-ubyte*"))
SOURCE = "fashion_mnist" if HAS_REAL_DATA else "synthetic"
BATCH_SIZES = (64, 512, 4096)
# What takes an epoch, by the name in the report: a loop of reference_loops.py, and overrides where it is ours
LOOPS = {
    "bare loop": ("bare", ()),
    "CUDA graph by hand": ("graphed", ()),
    "ours": ("fmnist_lit", ()),
    "ours, trainer.cuda_graph=true": ("fmnist_lit", ("trainer.cuda_graph=true",)),
    "the template's way": ("template", ()),
}
BY_HAND, OURS_GRAPHED, TEMPLATE = "CUDA graph by hand", "ours, trainer.cuda_graph=true", "the template's way"
ANSWER = "ANSWER "  # before the line in which a child process says what it has measured
JOBS = (4, 16, 64)
# How a sweep runs, by the name in the report
STACKED, GRAPHED, ALONE = "stacked", "stacked, trainer.cuda_graph=true", "one after another"
SWEEPS = {
    STACKED: ("hydra/launcher=stacked",),
    GRAPHED: ("hydra/launcher=stacked", "trainer.cuda_graph=true"),
    ALONE: ("hydra/launcher=basic",),
}
PATIENCE = 3  # how many times as long as expected a part may take


class PartFailedError(Exception):
    """What a part cannot show, in the words of its process, and the figures that there are all the same."""

    def __init__(self, why: str, printed: str = "") -> None:
        super().__init__("\n".join([why, *printed.strip().splitlines()[-12:]]))
        self.printed = printed
        self.figures: dict[str, Any] = {}


class NotHereError(Exception):
    """A part that this machine has nothing for."""


@dataclass
class Outcome:
    """What came of a part."""

    part: str
    status: str  # passed, failed, skipped
    seconds: float = 0.0
    figures: dict[str, Any] = field(default_factory=dict)
    error: str | None = None
    printed: str = ""  # by a part that failed, all of it


@dataclass(frozen=True)
class Place:
    """Where and how long the parts run.

    Attributes:
        folder: for what they write.
        small: whether to make them small, for a CPU.
        end: of all, on the clock of time.monotonic.
    """

    folder: Path
    small: bool
    end: float

    @property
    def seconds_left(self) -> float:
        return self.end - time.monotonic()

    @property
    def accelerator(self) -> str:
        return "cpu" if self.small else "gpu"

    def python(self, *words: str, **environment: str) -> str:
        """What a Python process prints.

        Raises:
            PartFailedError: if it fails, or is not over when all has to be.
        """
        paths = os.pathsep.join(filter(None, (str(ROOT / "src"), os.environ.get("PYTHONPATH"))))
        env = {**os.environ, "PYTHONPATH": paths, "FMNIST_DATA_DIR": str(Path(DATA_DIR).absolute()), **environment}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
        command = [sys.executable, *words]
        with subprocess.Popen(command, cwd=self.folder, env=env, start_new_session=True, **pipes) as process:
            try:
                printed, _ = process.communicate(timeout=max(1, self.seconds_left))
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)  # with all that it has started
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                raise PartFailedError("not over in time", process.communicate()[0]) from error
        if process.returncode:
            raise PartFailedError(f"exit code {process.returncode}", printed)
        return printed

    def run(self, name: str, *overrides: str, **environment: str) -> dict[str, Any]:
        """Train as a user does, in the run folder ``name``; its results, and what it said of CUDA graphs."""
        sizes = ("data.train_size=2000", "data.val_size=500", "data.test_size=500", "trainer.max_epochs=2")
        words = (f"data.source={SOURCE}", f"trainer.accelerator={self.accelerator}", *(sizes if self.small else ()))
        folder = self.folder / name
        self.python("-m", "fmnist_lit", *words, *overrides, f"hydra.run.dir='{folder}'", **environment)
        results: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        results["said"] = re.findall(r"trainer\.cuda_graph: (.*)", (folder / "train.log").read_text(encoding="utf-8"))
        return results


# The parts: each shows something, and returns figures


def machine(place: Place) -> dict[str, Any]:
    """What all is measured on."""
    told = place.python("-c", TELL)
    card = "none"
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        card = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
    return {"card, driver, memory": card, **json.loads(told.splitlines()[-1]), "data": SOURCE}


TELL = """
import json, os, platform, torch
from fmnist_lit.run.provenance import provenance
print(json.dumps({**provenance(), "CUDA": torch.version.cuda, "cores": os.cpu_count(), "system": platform.platform()}))
"""


def tests(place: Place) -> dict[str, Any]:
    """The part of the suite that is for GPUs."""
    options = ("-o", "addopts=--import-mode=importlib", "-o", "filterwarnings=default", "-q", "--durations=5", "-rfEs")
    printed = place.python("-m", "pytest", str(ROOT / "tests" / "test_gpu.py"), *options)
    counts = printed.strip().splitlines()[-1].strip("= ")
    if "passed" not in counts:
        raise NotHereError(counts)
    return {"pytest": counts}


def epochs(loop: str, place: Place) -> dict[str, Any]:
    """Seconds an epoch of a loop, by batch size, the first epoch not counted."""
    if place.small and loop == BY_HAND:
        raise NotHereError("needs a GPU")
    sizes = BATCH_SIZES[:1] if place.small else BATCH_SIZES
    words = ["--measure", loop, "--batch-size", *map(str, sizes), *(["--small"] if place.small else [])]
    try:
        return answers(place.python(str(Path(__file__).resolve()), *words))
    except PartFailedError as error:
        error.figures = answers(error.printed)
        raise


def answers(printed: str) -> dict[str, Any]:
    """What --measure has printed, by batch size."""
    found = [json.loads(line.removeprefix(ANSWER)) for line in printed.splitlines() if line.startswith(ANSWER)]
    return {str(answer.pop("batch_size")): answer for answer in found}


def default_run(place: Place) -> dict[str, Any]:
    """The command without an option, and the same from a graph."""
    eager, graphed = place.run("default"), place.run("graphed", "trainer.cuda_graph=true")
    shown = ("device", "seconds", "test_accuracy", "test_loss")
    figures = {name: {key: run[key] for key in shown} for name, run in (("eager", eager), ("graphed", graphed))}
    return {**figures, "said": graphed["said"]}


def resume(place: Place) -> dict[str, Any]:
    """A run of two epochs, and one that was ended after the first and went on."""
    same = ("+trainer.deterministic=true", "optimizer=adam", "model.dropout=0.2")
    workspace = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    whole = place.run("whole", *same, "trainer.max_epochs=2", **workspace)
    place.run("parts", *same, "trainer.max_epochs=1", **workspace)
    ended = place.run("parts", "trainer.max_epochs=2", f"ckpt_path='{place.folder / 'parts'}'", **workspace)
    if ended["weights_sha256"] != whole["weights_sha256"]:
        raise PartFailedError(f"other bits: {ended['weights_sha256'][:12]}… and {whole['weights_sha256'][:12]}…")
    return {"weights_sha256 of both": whole["weights_sha256"]}


def evaluate(place: Place) -> dict[str, Any]:
    """The test accuracy of one checkpoint in training, on the GPU, and on the CPU."""
    folder = place.folder / "evaluated"
    figures = {"trained with": place.run(folder.name, "trainer.max_epochs=1")["test_accuracy"]}
    hidden = {"on the GPU": {}, "on the CPU": {"CUDA_VISIBLE_DEVICES": ""}}
    for name, environment in hidden.items():
        place.python("-m", "fmnist_lit.evaluate", str(folder), **environment)
        (file,) = folder.rglob("evaluation.json")
        figures[name] = json.loads(file.read_text(encoding="utf-8"))["accuracy"]
    if max(figures.values()) - min(figures.values()) > 0.001:
        raise PartFailedError(f"different: {figures}")
    return figures


def ddp(place: Place) -> dict[str, Any]:
    """A data-parallel run on one card."""
    results = place.run("ddp", "trainer=ddp", "trainer.devices=1", "trainer.max_epochs=1")
    return {key: results[key] for key in ("device", "num_processes", "seconds", "test_accuracy")}


def bf16(place: Place) -> dict[str, Any]:
    """The default run in bfloat16."""
    results = place.run("bf16", "trainer.precision=bf16-mixed")
    return {key: results[key] for key in ("device", "seconds", "test_accuracy")}


def sweep(way: str, jobs: int, place: Place) -> dict[str, Any]:
    """A sweep over so many learning rates."""
    folder = place.folder / f"sweep_{list(SWEEPS).index(way)}_{jobs}"
    rates = ",".join(f"{10 ** (-3 + 2 * number / (jobs - 1)):.4g}" for number in range(jobs))
    words = [f"optimizer.lr={rates}", f"data.source={SOURCE}", f"trainer.accelerator={place.accelerator}"]
    words += [*SWEEPS[way], "trainer.max_epochs=2", f"hydra.sweep.dir='{folder}'"]
    if place.small:
        words += ["data.train_size=500", "data.val_size=100", "data.test_size=100", "model.hidden_sizes=[16]"]
    start = time.monotonic()
    printed = place.python("-m", "fmnist_lit", "-m", *words)
    seconds = time.monotonic() - start
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    statuses = [row["status"] for row in rows]
    if statuses.count("completed") != jobs:
        raise PartFailedError(f"{statuses.count('completed')} of {jobs} jobs completed")
    best = max(float(row["val_accuracy"]) for row in rows)
    said = sorted(set(re.findall(r"(?:not stacked|trainer\.cuda_graph): .*", printed)))
    return {"wall seconds": round(seconds, 1), "best val accuracy": best, **({"said": said} if said else {})}


@dataclass(frozen=True)
class Part:
    """Something to show, and the seconds that it is expected to take on a GPU."""

    name: str
    seconds: int
    show: Callable[[Place], dict[str, Any]]


def parts(small: bool) -> Iterator[Part]:
    """In the order of what matters."""
    few, middle, many = (2, 3, 4) if small else JOBS
    yield Part("machine", 15, machine)
    yield Part("tests", 60, tests)
    for loop in LOOPS:
        yield Part(f"epochs: {loop}", 50 if loop == TEMPLATE else 20, partial(epochs, loop))
    for jobs in (middle, few, many):
        for way in (GRAPHED, STACKED):
            yield Part(f"sweep: {jobs}, {way}", 20, partial(sweep, way, jobs))
    yield Part(f"sweep: {middle}, {ALONE}", 40, partial(sweep, ALONE, middle))
    yield Part("default run", 30, default_run)
    yield Part("resume", 40, resume)
    yield Part("evaluate", 30, evaluate)
    yield Part("DDP with one card", 20, ddp)
    yield Part("bf16", 20, bf16)
    yield Part(f"sweep: {few}, {ALONE}", 20, partial(sweep, ALONE, few))
    yield Part(f"sweep: {many}, {ALONE}", 30 if small else 110, partial(sweep, ALONE, many))


def show(part: Part, place: Place) -> Outcome:
    """Run a part if there is time for it; whatever happens to it is its outcome."""
    if place.seconds_left < part.seconds:
        left = max(0, place.seconds_left)
        return Outcome(part.name, "skipped", error=f"takes about {part.seconds} s, and {left:.0f} are left")
    start = time.monotonic()
    outcome = Outcome(part.name, "passed")
    try:
        outcome.figures = part.show(replace(place, end=min(place.end, start + PATIENCE * part.seconds)))
    except NotHereError as error:
        outcome.status, outcome.error = "skipped", str(error)
    except Exception as error:  # the other parts are of use without it
        outcome.status, outcome.error = "failed", f"{type(error).__name__}: {error}"
        outcome.figures, outcome.printed = getattr(error, "figures", {}), getattr(error, "printed", "")
    outcome.seconds = round(time.monotonic() - start, 1)
    return outcome


# The report


def write_report(outcomes: list[Outcome], output: Path) -> None:
    """Both files; each is replaced whole."""
    output.mkdir(parents=True, exist_ok=True)
    contents = {"gpu.json": json.dumps([asdict(outcome) for outcome in outcomes], indent=1), "gpu.md": report(outcomes)}
    for name, text in contents.items():
        beside = output / f".{name}.tmp"
        beside.write_text(f"{text}\n", encoding="utf-8")
        beside.replace(output / name)


def report(outcomes: list[Outcome]) -> str:
    """In Markdown, for people."""
    sections = [machine_lines(outcomes), epoch_table(outcomes), sweep_table(outcomes), part_table(outcomes)]
    errors = [f"### {o.part}: {o.status}\n\n```\n{o.error}\n```" for o in outcomes if o.status == "failed"]
    return "\n\n".join(filter(None, ["# On a GPU", *sections, *errors]))


def machine_lines(outcomes: list[Outcome]) -> str:
    """What it was measured on."""
    figures = next((outcome.figures for outcome in outcomes if outcome.part == "machine"), {})
    return "\n".join(f"- {key}: {value}" for key, value in figures.items())


def epoch_table(outcomes: list[Outcome]) -> str:
    """Seconds an epoch and a step's share, and how the goals stand: 1.2 × the graph by hand, 1/8 of the template."""
    measured = {o.part.removeprefix("epochs: "): o.figures for o in outcomes if o.part.startswith("epochs: ")}
    sizes = list(dict.fromkeys(size for figures in measured.values() for size in figures))
    if not sizes:
        return ""
    tables = {
        "Seconds an epoch, medians, at batch size": rows_of(measured, sizes, "median", 1),
        "Microseconds that a step adds, at batch size": rows_of(measured, sizes, "step", 1e6),
    }
    return "\n\n".join(f"## {title}\n\n{table(['', *sizes], rows)}" for title, rows in tables.items())


def rows_of(measured: dict[str, Any], sizes: list[str], figure: str, factor: float) -> list[list[str]]:
    """A figure of each loop by batch size, and the ratios of ours from a graph."""
    values = {loop: [figures.get(size, {}).get(figure) for size in sizes] for loop, figures in measured.items()}
    nothing = [None] * len(sizes)
    rows = [[loop, *(three_digits(value and factor * value) for value in of)] for loop, of in values.items()]
    for other in (BY_HAND, TEMPLATE):
        pairs = zip(values.get(OURS_GRAPHED, nothing), values.get(other, nothing), strict=True)
        ratios = [ours and theirs and ours / theirs for ours, theirs in pairs]
        rows.append([f"{OURS_GRAPHED} / {other}", *map(three_digits, ratios)])
    return rows


def sweep_table(outcomes: list[Outcome]) -> str:
    """Stacked beside one after another."""
    seconds: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        if outcome.figures and (found := re.fullmatch(r"sweep: (\d+), (.*)", outcome.part)):
            seconds.setdefault(found[1], {})[found[2]] = outcome.figures["wall seconds"]
    rows = []
    for jobs, by_way in sorted(seconds.items(), key=lambda item: int(item[0])):
        values = [by_way.get(way) for way in SWEEPS]
        times_as_fast = [seconds and values[-1] and values[-1] / seconds for seconds in values[:-1]]
        rows.append([jobs, *map(three_digits, values + times_as_fast)])
    head = ["learning rates", *SWEEPS, *(f"times as fast: {way}" for way in (STACKED, GRAPHED))]
    return f"## Seconds a sweep, start and summary included\n\n{table(head, rows)}" if rows else ""


def part_table(outcomes: list[Outcome]) -> str:
    """Every part and what came of it."""
    rows = []
    for o in outcomes:
        told = json.dumps(o.figures, ensure_ascii=False) if o.status == "passed" else (o.error or "").splitlines()[0]
        rows.append([o.part, o.status, f"{o.seconds:.0f}", told.replace("|", "\\|")])
    return f"## All parts\n\n{table(['part', 'status', 'seconds', ''], rows)}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def three_digits(value: float | None) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


# In a process of its own


class EnoughError(BaseException):
    """Ends a loop, as one that the loop itself does not catch."""


def measure(loop: str, batch_size: int, small: bool) -> dict[str, Any]:
    """Seconds an epoch of a loop, and what a step adds to them, which an epoch of half the images tells."""
    num_samples = 2000 if small else 60_000
    whole, accuracy = laps(loop, batch_size, num_samples, small)
    figures = {"batch_size": batch_size, "median": statistics.median(whole), "min": min(whole), "epochs": len(whole)}
    if loop != TEMPLATE:  # whose epochs are long
        half, _ = laps(loop, batch_size, num_samples // 2, small)
        steps = math.ceil(num_samples / batch_size) - math.ceil(num_samples / 2 / batch_size)
        figures["step"] = (figures["median"] - statistics.median(half)) / steps
    return {**figures, "accuracy": accuracy}


def laps(loop: str, batch_size: int, num_samples: int, small: bool) -> tuple[list[float], float]:
    """Seconds of up to five epochs, as far as six seconds go, after one that is not counted; and the accuracy."""
    sys.path.insert(0, str(ROOT / "scripts" / "benchmark"))
    import reference_loops
    import torch

    if small:
        torch.set_num_threads(1)
    name, overrides = LOOPS[loop]
    setting = reference_loops.Setting(
        device="cpu" if small else "cuda",
        batch_size=batch_size,
        hidden_size=32 if small else 512,
        num_samples=num_samples,
        total_epochs=10,
        overrides=overrides,
        source=SOURCE,
    )
    times: list[float] = []
    accuracies: list[float] = []

    def lap(accuracy: float) -> None:
        if not small:
            torch.cuda.synchronize()
        times.append(time.perf_counter())
        accuracies.append(accuracy)
        if len(times) > (2 if small else 6) or (len(times) > 2 and times[-1] - times[1] > 6):
            raise EnoughError

    with suppress(EnoughError):
        getattr(reference_loops, name)(setting, lap)
    return [after - before for before, after in pairwise(times[1:])], accuracies[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7, help="for all of it; what no longer fits is skipped")
    parser.add_argument("--output", type=Path, default=ROOT / "outputs" / "gpu", metavar="FOLDER")
    parser.add_argument("--small", action="store_true", help="little data, on a CPU")
    parser.add_argument("--parts", nargs="+", metavar="WORD", help="only those whose names contain one of these")
    parser.add_argument("--measure", choices=LOOPS, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        for batch_size in args.batch_size:
            print(f"\n{ANSWER}{json.dumps(measure(args.measure, batch_size, args.small))}", flush=True)
        return
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Place(Path(folder), args.small, time.monotonic() + 60 * args.minutes)
        for part in parts(args.small):
            if args.parts and not any(word in part.name for word in args.parts):
                continue
            outcomes.append(show(part, place))
            write_report(outcomes, args.output)
            last = outcomes[-1]
            print(
                f"{last.status:8}{last.seconds:6.1f} s  {last.part}  {(last.error or '').splitlines()[:1]}", flush=True
            )
    print(f"\n{report(outcomes)}\n\nAlso in {args.output}")
    sys.exit(any(outcome.status == "failed" for outcome in outcomes))


if __name__ == "__main__":
    main()
