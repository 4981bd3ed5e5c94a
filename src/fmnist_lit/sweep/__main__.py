"""python -m fmnist_lit.sweep DIR…: rebuild the summary of a sweep, or of several as one."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from fmnist_lit.processes.streams import run_printing
from fmnist_lit.sweep.summary import summarize
from fmnist_lit.sweep.table import NotASweepError


def main(arguments: Sequence[str] | None = None) -> int:
    """Summarise the folders on the command line.

    Returns:
        The exit code: 0 done, 1 the summary could not be written, 2 a folder is no sweep.
    """
    parser = argparse.ArgumentParser(prog="python -m fmnist_lit.sweep", description="Rebuild a sweep's summary.")
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a sweep's folder; several are one table")
    parser.add_argument("--live", action="store_true", help="the sweep is still running: its jobs were not killed")
    args = parser.parse_args(arguments)
    folders = [Path(os.path.expanduser(folder)) for folder in args.folders]
    try:
        summary = summarize(folders, live=args.live)
    except NotASweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {folders[0]}: the summary cannot be written: {error}", file=sys.stderr)
        return 1
    print(summary.text)
    print(f"\nsummary.html, summary.md, summary.csv and plots are in {folders[0]}")
    return 0


if __name__ == "__main__":
    sys.exit(run_printing(main))
