"""A sweep's summary: from the folders of its jobs to a table, a verdict and charts in the sweep's folder."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_lit.run.files import remove_orphans, write_durably, write_text
from fmnist_lit.sweep.rendering import to_csv, to_html, to_markdown, to_screen
from fmnist_lit.sweep.table import SweepTable, collect
from fmnist_lit.sweep.verdict import Verdict, judge

if TYPE_CHECKING:  # matplotlib is imported only to draw
    from fmnist_lit.report.charts import Chart

OWN_CHARTS = re.compile(r"(heatmap|accuracy|figure|bars)_.+\.png|(seeds|curves|importance|parallel|training_time)\.png")


@dataclass(frozen=True)
class Summary:
    """What a sweep came to.

    Attributes:
        table: its jobs, ranked.
        verdict: the best, the command that reruns it, and warnings.
    """

    table: SweepTable
    verdict: Verdict

    @property
    def text(self) -> str:
        """The table and the verdict for the screen."""
        return to_screen(self.table, self.verdict)


def summarize(folders: Sequence[Path], *, live: bool = False, charts: bool = True) -> Summary:
    """Write ``summary.csv``, ``summary.md``, ``summary.html`` and ``plots/*.png`` into the first of the folders.

    May be called while jobs run, and by several of them at once: no file is ever half written, and a job whose files
    are damaged or incomplete only has a remark in its row.

    Args:
        folders: one sweep's folder, or several to be read as one sweep.
        live: whether jobs may still be running; otherwise one whose status is ``running`` was killed.
        charts: draw them, which takes seconds; without, the summary says that there are none yet.

    Raises:
        NotASweepError: if a folder is none.
        OSError: if the summary cannot be written.
    """
    table = collect(folders, live=live)
    verdict = judge(table)
    if not live:
        for folder in (table.sweep_dir, table.sweep_dir / "plots"):
            remove_orphans(folder)
    write_text(table.sweep_dir / "summary.csv", to_csv(table, verdict))
    drawing = shlex.join(["python", "-m", "fmnist_lit.sweep", *(str(Path(folder).absolute()) for folder in folders)])
    write_pages(table, verdict, [], f"No charts yet; {drawing} draws them.", live=live)
    if charts:
        write_pages(table, verdict, *write_charts(table), live=live)
    return Summary(table, verdict)


def write_charts(table: SweepTable) -> tuple[Sequence["Chart"], str]:
    """Draw the charts into ``plots`` in place of earlier ones.

    Returns:
        The charts, and why there are none, where there are none.
    """
    try:
        from fmnist_lit.sweep.charts import draw_sweep
        from fmnist_lit.sweep.influence import draw_influence
    except ImportError as error:
        return [], f"No charts: {error}."
    charts = [*draw_sweep(table), *draw_influence(table)]
    folder = table.sweep_dir / "plots"
    for chart in charts:
        write_durably(folder / f"{chart.name}.png", methodcaller("write", chart.png))
    names = {f"{chart.name}.png" for chart in charts}
    for file in folder.glob("*.png"):
        if OWN_CHARTS.fullmatch(file.name) and file.name not in names:
            file.unlink()
    return charts, "No charts: nothing is ranked."


def write_pages(table: SweepTable, verdict: Verdict, charts: Sequence["Chart"], note: str, *, live: bool) -> None:
    """Write ``summary.md`` and ``summary.html``; ``note`` is shown where there are no charts."""
    write_text(table.sweep_dir / "summary.md", to_markdown(table, verdict, charts, note))
    write_text(table.sweep_dir / "summary.html", to_html(table, verdict, charts, note, live=live))
