"""Interrupt a sweep of 24 jobs with SIGKILL, SIGINT and SIGTERM, go on each time, and compare with one left alone.

python scripts/proofs/sweep_resumes.py [FOLDER]
"""

import argparse
import csv
import hashlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import torch

from fmnist_lit.run.files import read_json
from fmnist_lit.sweep.plan import read_plan

JOBS = 24
COMMAND = [
    *(sys.executable, "-m", "fmnist_lit", "-m", "num_threads=1", "trainer.accelerator=cpu", "trainer.max_epochs=3"),
    *("data.train_size=3000", "data.val_size=1000", "data.test_size=1000", "data.batch_size=16"),
    *("model.dropout=0.2", "scheduler=cosine", "trainer.checkpoint_every_n_steps=100"),
    *("optimizer=sgd_momentum,adam", "seed=0,1,2,3"),
]
RATES = "optimizer.lr=0.001,0.003,0.01"
INTERRUPTIONS = ((signal.SIGKILL, 5), (signal.SIGINT, 12), (signal.SIGTERM, 19))  # and the jobs finished before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="for both sweeps; a new temporary one if not given")
    folder = parser.parse_args().folder or Path(tempfile.mkdtemp(prefix="sweep_"))
    folder.mkdir(parents=True, exist_ok=True)
    whole, broken = folder / "whole", folder / "broken"
    show("uninterrupted", sweep(whole))
    finished: dict[str, dict[Path, tuple[str, int]]] = {}
    for signum, count in INTERRUPTIONS:
        code, job = sweep(broken, signum, after=count)
        show(f"{signum.name} in {job}", (code, None))
        require_whole_summary(broken)
        require_untouched(broken, finished)
        finished |= {name: fingerprint(broken / name) for name in completed(broken)}
    show("to the end", sweep(broken))
    require_whole_summary(broken)
    require_untouched(broken, finished)
    print(f"{len(finished)} folders finished before an interruption are untouched, byte and time")
    for name in completed(whole):
        assert outcome(broken / name) == outcome(whole / name), name
    print(f"{len(completed(whole))} jobs have the weights, figures and curves of the uninterrupted sweep, bit for bit")
    for name in ("summary.csv", "summary.md", "summary.html"):
        assert without_times(broken / name) == without_times(whole / name), name
    print("summary.csv, summary.md and summary.html are the same but for times (and the pictures' bytes)")
    finished = {name: fingerprint(broken / name) for name in completed(broken)}
    show("one more learning rate", sweep(broken, rates=f"{RATES},0.03"))
    require_untouched(broken, finished)
    assert len(completed(broken)) == JOBS + 8
    print(f"{len(completed(broken)) - JOBS} new jobs ran, {len(finished)} folders are untouched")


def sweep(
    folder: Path, signum: signal.Signals | None = None, after: int = JOBS, rates: str = RATES
) -> tuple[int, str | None]:
    """Run the command, to the end or to a signal in the middle of the job after so many finished ones.

    Returns:
        The exit code, and the job that the signal met.
    """
    with open(folder.with_suffix(".log"), "a") as log:
        process = subprocess.Popen([*COMMAND, rates, f"hydra.sweep.dir={folder}"], stdout=log, stderr=log)
        if signum is None:
            return process.wait(), None
        while not (len(completed(folder)) >= after and (job := in_the_middle(folder))):
            assert process.poll() is None, f"ended before it was interrupted; see {log.name}"
            time.sleep(0.005)
        process.send_signal(signum)
        return process.wait(), job


def in_the_middle(folder: Path) -> str | None:
    """The job that has taken its first steps but has not ended."""
    for file in folder.glob("*/checkpoints/last.ckpt"):
        run_dir = file.parents[1]
        if read_json(run_dir / "results.json").get("status") == "running" and not (run_dir / "metrics.csv").exists():
            return run_dir.name
    return None


def completed(folder: Path) -> list[str]:
    """The jobs with that status."""
    files = folder.glob("*/results.json")
    return sorted(file.parent.name for file in files if read_json(file).get("status") == "completed")


def fingerprint(run_dir: Path) -> dict[Path, tuple[str, int]]:
    """Each file's hash and time of writing."""
    return {
        file: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns)
        for file in run_dir.rglob("*")
        if file.is_file()
    }


def require_untouched(folder: Path, finished: dict[str, dict[Path, tuple[str, int]]]) -> None:
    for name, files in finished.items():
        assert fingerprint(folder / name) == files, name


def require_whole_summary(folder: Path) -> None:
    """A row a job, in every file, and HTML whose tags close."""
    rows = list(csv.DictReader((folder / "summary.csv").read_text().splitlines()))
    assert {job.folder for job in read_plan(folder).jobs} <= {row["folder"] for row in rows}
    assert len(rows) == JOBS
    open_tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, _: tag in ("meta", "img", "wbr") or open_tags.append(tag)
    parser.handle_endtag = lambda tag: open_tags.remove(tag)
    parser.feed((folder / "summary.html").read_text())
    assert open_tags == []
    counts = Counter(row["status"] for row in rows)
    print(f"  summary: {', '.join(f'{count} {status}' for status, count in counts.items())}")


def outcome(run_dir: Path) -> tuple[dict, list, dict]:
    """All that a run leaves, but for times and where it came from."""
    apart = ("seconds", "fit_cpu_seconds", "started", "provenance")  # the commit of a tree that somebody edits
    results = {k: v for k, v in read_json(run_dir / "results.json").items() if k not in apart}
    with open(run_dir / "metrics.csv", newline="") as file:
        curves = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    weights = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return results, curves, {key: value.numpy().tobytes() for key, value in weights.items()}


def without_times(file: Path) -> str:
    """A summary's text without seconds, pictures' bytes, widths of columns and the sweep's own name."""
    if file.suffix == ".csv":
        return str([{**row, "seconds": ""} for row in csv.DictReader(file.read_text().splitlines())])
    text = file.read_text().replace(file.parent.name, "NAME")
    if file.suffix == ".html":
        text = re.sub(r"base64,[^\"]+", "", text)
        return re.sub(r'data-number="[\d.]+">[\d.]+</td>(?=<td>)', "", text)  # the last number before the folder
    lines, seconds = [], None
    for line in re.sub(r"[ -]+", " ", text).splitlines():
        cells = line.split("|")
        if " seconds " in cells:
            seconds = cells.index(" seconds ")
        elif len(cells) > 1:  # a row of the table below that header
            cells[seconds] = ""
        lines.append("|".join(cells))
    return "\n".join(lines)


def show(what: str, ended: tuple[int, str | None]) -> None:
    print(f"{what}: exit code {ended[0]}", flush=True)


if __name__ == "__main__":
    main()
