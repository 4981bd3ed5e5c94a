"""A sweep's summary: from the folders of its jobs to a table, a verdict and pictures in the sweep's folder."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fmnist_lit.run.files import remove_orphans, write_durably
from fmnist_lit.sweep import pages as report
from fmnist_lit.sweep.table import Table, collect
from fmnist_lit.sweep.verdict import Verdict, judge

OWN_PICTURES = re.compile(r"(heatmap|accuracy|bars)_.+\.png|(seeds|curves)\.png")


@dataclass(frozen=True)
class Summary:
    """What a sweep came to.

    Attributes:
        table: its jobs, ranked.
        verdict: the best, the command that reruns it, and warnings.
    """

    table: Table
    verdict: Verdict

    @property
    def text(self) -> str:
        """The table and the verdict for the screen."""
        return report.to_screen(self.table, self.verdict)


def summarize(folders: Sequence[Path], *, live: bool = False, charts: bool = True) -> Summary:
    """Write ``summary.csv``, ``summary.md``, ``summary.html`` and ``plots/*.png`` into the first of the folders.

    Each file is whole at any moment, and damaged job folders only show in their rows, so this may be called while
    jobs run, by several of them at once.

    Args:
        folders: one sweep's folder, or several to be read as one sweep.
        live: whether jobs may still be running; otherwise one that says so was killed.
        charts: draw, which takes seconds; without, the summary has none until the next time.

    Raises:
        NotASweepError: if a folder is none.
        OSError: if the summary cannot be written.
    """
    table = collect(folders, live=live)
    verdict = judge(table)
    if not live:
        for folder in (table.sweep_dir, table.sweep_dir / "plots"):
            remove_orphans(folder)
    write(table.sweep_dir / "summary.csv", report.to_csv(table))
    write_pages(table, verdict, [], "No pictures yet; python -m fmnist_lit.sweep draws them.")
    if charts:
        write_pages(table, verdict, *draw(table))
    return Summary(table, verdict)


def draw(table: Table) -> tuple[list, str]:
    """Draw the pictures into ``plots`` in place of earlier ones; or say why there are none."""
    try:
        from fmnist_lit.sweep import charts as plots
    except ImportError as error:
        return [], f"No pictures: {error}."
    pictures = plots.draw(table)
    folder = table.sweep_dir / "plots"
    for picture in pictures:
        write_durably(folder / f"{picture.name}.png", lambda file, png=picture.png: file.write(png))
    names = {f"{picture.name}.png" for picture in pictures}
    for file in folder.glob("*.png"):
        if OWN_PICTURES.fullmatch(file.name) and file.name not in names:
            file.unlink()
    return pictures, "No pictures: nothing is ranked."


def write_pages(table: Table, verdict: Verdict, pictures: list, note: str) -> None:
    """Write what people read."""
    write(table.sweep_dir / "summary.md", report.to_markdown(table, verdict, pictures, note))
    write(table.sweep_dir / "summary.html", report.to_html(table, verdict, pictures, note))


def write(path: Path, text: str) -> None:
    """Write text durably; bytes of a folder's name that are no UTF-8 are escaped."""
    write_durably(path, lambda file: file.write(text.encode("utf-8", "backslashreplace")))
