"""python -m fmnist_lit.sweep DIR…: rebuild the summary of a sweep, or of several as one, or watch it while it runs."""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fmnist_lit.errors import in_one_line
from fmnist_lit.processes.lock import is_held
from fmnist_lit.processes.streams import run_printing
from fmnist_lit.sweep.rendering import to_screen
from fmnist_lit.sweep.summary import Summary, summarize
from fmnist_lit.sweep.table import NotASweepError, collect
from fmnist_lit.sweep.verdict import judge

SECONDS_BETWEEN_LOOKS = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Summarise the folders on the command line.

    Returns:
        The exit code: 0 done, 1 the summary could not be written, 2 a folder is no sweep.
    """
    parser = argparse.ArgumentParser(prog="python -m fmnist_lit.sweep", description="Rebuild a sweep's summary.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a sweep's folder; several are one table")
    parser.add_argument("--dashboard", type=number_of_jobs, metavar="N", help="draw TensorBoard's for the best N, too")
    parser.add_argument("--live", action="store_true", help="the sweep is still running: its jobs were not killed")
    parser.add_argument("--follow", action="store_true", help="show the table while jobs run; writes nothing till then")
    args = parser.parse_args(arguments)
    folders = [Path(os.path.expanduser(folder)) for folder in args.folders]
    try:
        if args.follow:
            follow_sweep(folders)
        summary = summarize(folders, live=args.live)
    except NotASweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {folders[0]}: the summary cannot be written: {error}", file=sys.stderr)
        return 1
    print(summary.text)
    print(f"\nsummary.html, summary.md, summary.csv and plots are in {folders[0]}")
    return draw_dashboards(summary, args.dashboard) if args.dashboard else 0


def number_of_jobs(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def draw_dashboards(summary: Summary, num: int) -> int:
    """Draw TensorBoard's dashboards of the best jobs, and say where.

    Returns:
        The exit code: 0 done, 1 something is missing or damaged.
    """
    from fmnist_lit.config import ConfigError
    from fmnist_lit.sweep.dashboards import draw_best  # torch

    try:
        jobs = draw_best(summary.table, num)
    except (ConfigError, OSError, RuntimeError) as error:
        print(f"error: no dashboard: {in_one_line(error)}", file=sys.stderr)
        return 1
    print(f"Dashboards of the best: {', '.join(job.folder for job in jobs) or 'nothing is ranked'}")
    return 0


def follow_sweep(folders: Sequence[Path]) -> None:
    """Show the table of a sweep, in a terminal in its place, until nobody leads it any more.

    Raises:
        NotASweepError: if a folder is none.
    """
    from rich.live import Live  # Lightning brings it; a summary needs nothing of it
    from rich.text import Text

    with Live(auto_refresh=False, transient=True) as shown:
        while any(is_held(folder, otherwise=False) for folder in folders):
            table = collect(folders, live=True)
            shown.update(Text(to_screen(table, judge(table)), no_wrap=True), refresh=shown.console.is_terminal)
            time.sleep(SECONDS_BETWEEN_LOOKS)


if __name__ == "__main__":
    sys.exit(run_printing(main))
