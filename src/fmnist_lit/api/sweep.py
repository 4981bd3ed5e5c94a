"""A sweep as Python and notebooks see it: a view of its folder."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from fmnist_lit.api.run import Run, shown_in_a_line
from fmnist_lit.config.paths import expanded
from fmnist_lit.processes.lock import is_held
from fmnist_lit.sweep.rendering import configuration_rows, sweep_title, to_csv
from fmnist_lit.sweep.summary import Summary, write_charts
from fmnist_lit.sweep.table import collect
from fmnist_lit.sweep.verdict import judge

WHOLE, NUMBER = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class Sweep:
    """What a sweep comes to, as the folders of its jobs say when it is asked.

    Attributes:
        folder: its folder, with a folder a job.
    """

    def __init__(self, folder: str | Path, context: Sequence[str] = ()) -> None:
        """See a folder as a sweep; ``context`` is as for ``Run``."""
        self.folder = Path(folder).absolute()
        self._context = tuple(context)

    def _summary(self) -> Summary:
        """Its table and verdict now."""
        table = collect([self.folder], live=is_held(self.folder, otherwise=False))
        return Summary(table, judge(table))

    @property
    def rows(self) -> list[dict[str, str | float | None]]:
        """A row a job as in ``summary.csv``, best first: numbers as numbers, None where there is nothing."""
        summary = self._summary()
        table = csv.DictReader(io.StringIO(to_csv(summary.table, summary.verdict)))
        return [{name: typed(text) for name, text in row.items()} for row in table]

    @property
    def best(self) -> Run | None:
        """The run of the configuration that ``select.metric`` says is best, validation accuracy unless it is set.

        Of several seeds the first; None if nothing is ranked. Test figures have played no part in the choice.
        """
        ranked = self._summary().table.ranked
        return Run(ranked[0].counted[0].run_dir, self._context) if ranked else None

    @property
    def verdict(self) -> str:
        """The best configuration, the command that reruns it, and how far to trust that it is the best."""
        verdict = self._summary().verdict
        command = [f"Run it again: {verdict.command}"] if verdict.command else []
        return "\n".join([verdict.headline, *command, *(f"Warning: {warning}" for warning in verdict.warnings)])

    def plots(self) -> list[Path]:
        """Its pictures, PNG files in ``plots``; they are drawn now where a job has ended since, or none was drawn."""
        files = sorted((self.folder / "plots").glob("*.png"))
        ended = [file.stat().st_mtime for file in self.folder.glob("*/**/results.json")]
        if not files or max(ended, default=0) > min(file.stat().st_mtime for file in files):
            write_charts(self._summary().table)
        return sorted((self.folder / "plots").glob("*.png"))

    def __repr__(self) -> str:
        summary = self._summary()
        statuses = [job.status for job in summary.table.jobs]
        told = f"{statuses.count('completed')} of {len(statuses)} jobs completed, {summary.verdict.headline}"
        return shown_in_a_line("Sweep", told, self.folder)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, the table and the pictures."""
        from fmnist_lit.api.pages import page_of_sweep

        table = self._summary().table
        return page_of_sweep(sweep_title(table), self.verdict, configuration_rows(table), self.plots())


def typed(text: str | None) -> str | float | None:
    """A cell of ``summary.csv``: a number where it is one."""
    if not text:
        return None
    if WHOLE.fullmatch(text):
        return int(text)
    return float(text) if NUMBER.fullmatch(text) else text


def find_sweep(folder: str | Path) -> Sweep:
    """As ``fmnist_lit.load_sweep``, which says more."""
    sweep = Sweep(expanded(str(folder), str(folder)))
    collect([sweep.folder])
    return sweep
