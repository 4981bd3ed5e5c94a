"""A sweep's table and verdict as CSV for programs, and as Markdown, one HTML page and plain text for people."""

import base64
import csv
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fmnist_lit.config.rules import title_of
from fmnist_lit.report.tables import Cell, Rows, escape_html, escape_markdown, markdown_table
from fmnist_lit.run.names import relative, shell_command
from fmnist_lit.sweep.jobs import Job
from fmnist_lit.sweep.table import RankedGroup, SweepTable
from fmnist_lit.sweep.values import LABELS, SEED, is_number, show_value
from fmnist_lit.sweep.verdict import Verdict, format_percent

if TYPE_CHECKING:  # matplotlib is imported only to draw
    from fmnist_lit.report.charts import Chart

FIGURE_COLUMNS = ("val_accuracy", "val_loss", "test_accuracy", "test_loss", "best_epoch", "seconds")
PAGE = Path(__file__).with_name("page.html")
MOST_ON_SCREEN = 40  # rows; of more the best twenty
BEST_ON_SCREEN = 20
RELOAD = '<meta http-equiv="refresh" content="5">'  # seconds


def figure_columns(table: SweepTable) -> list[str]:
    """The figures of ``results.json`` that are shown, the one that ranks first."""
    return list(dict.fromkeys([table.criterion.column, *FIGURE_COLUMNS]))


def to_csv(table: SweepTable, verdict: Verdict) -> str:
    """A row a job: accuracies as fractions, numbers in full; ``rank`` is that of its group.

    ``p_vs_best`` is how likely a gap to the best as large as its group's is between equals, corrected for the choice.
    Where seeds vary, ranked rows also have ``n``, means and sample standard deviations of their group.
    """
    columns = figure_columns(table)
    per_group = list(dict.fromkeys([columns[0], "val_accuracy", "test_accuracy"])) if table.seeded else []
    names = ["rank", *table.varied, "status", *columns, "folder", "dataset", "reason", "p_vs_best"]
    names += ["n"] * table.seeded + [f"{name}_{kind}" for name in per_group for kind in ("mean", "std")]
    labels = [name for name in LABELS if any(job.labels[name] for job in table.jobs)]
    names += labels
    groups = {job.run_dir: group for group in table.ranked for job in group.counted}
    p_values = {comparison.other.rank: comparison.p for comparison in verdict.comparisons}
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for job in table.jobs:
        row: dict[str, Any] = {
            key: value if is_number(value := job.value(key)) else show_value(value) for key in table.varied
        }
        row |= {name: job.figure(name) for name in columns}
        row |= {name: job.labels[name] for name in labels}
        row |= {"status": job.status, "folder": job.folder, "dataset": job.results.get("dataset"), "reason": job.reason}
        if group := groups.get(job.run_dir):
            row |= {"rank": group.rank, "p_vs_best": p_values.get(group.rank)}
            if table.seeded:
                row["n"] = group.n
            for name in per_group:
                row |= {f"{name}_mean": group.mean(name), f"{name}_std": group.std(name)}
        writer.writerow(row)
    return text.getvalue()


def to_markdown(table: SweepTable, verdict: Verdict, charts: Sequence["Chart"], note: str) -> str:
    """The whole summary as Markdown; ``note`` says why there are no charts, where there are none."""
    parts = [f"# {escape_markdown(sweep_title(table))}", *map(escape_markdown, shared_labels(table))]
    parts.append(f"**{escape_markdown(verdict.headline)}**")
    if verdict.command:
        parts += ["Run it again:", textwrap.indent(verdict.command, "    ")]
    parts += ["Curves and hyper-parameters:", textwrap.indent(board_command(table), "    ")]
    parts += [f"**Warning:** {escape_markdown(warning)}" for warning in verdict.warnings]
    parts += ["## Table", markdown_table(configuration_rows(table))]
    if table.seeded:
        parts += ["## Runs", markdown_table(run_rows(table))]
    parts += ["## Charts"]
    parts += [f"![{escape_markdown(chart.caption)}](plots/{quote(chart.name)}.png)" for chart in charts]
    return "\n\n".join([*parts, *([] if charts else [note])]) + "\n"


def to_screen(table: SweepTable, verdict: Verdict) -> str:
    """The table, or of a long one its beginning, and the verdict last, just above the prompt."""
    rows = configuration_rows(table)
    shown = rows if len(rows) <= MOST_ON_SCREEN else rows[:BEST_ON_SCREEN]
    more = [] if shown is rows else [f"… and {len(rows) - len(shown)} more rows in summary.csv and summary.html"]
    command = [f"Run it again: {verdict.command}"] if verdict.command else []
    warnings = [f"Warning: {warning}" for warning in verdict.warnings]
    return "\n".join(
        [
            *(sweep_title(table), *shared_labels(table), ""),
            *(markdown_table(shown), *more, "", verdict.headline, *command),
            *(f"Curves and hyper-parameters: {board_command(table, from_here=True)}", *warnings),
        ]
    )


def to_html(table: SweepTable, verdict: Verdict, charts: Sequence["Chart"], note: str, *, live: bool = False) -> str:
    """The whole summary as one page that needs no other file and no network; ``live`` makes it load itself anew."""
    images = [
        f'<img src="data:image/png;base64,{base64.b64encode(chart.png).decode()}" alt="{escape_html(chart.caption)}">'
        for chart in charts
    ]
    command = f"<p>Run it again:</p><pre><code>{escape_html(verdict.command)}</code></pre>" if verdict.command else ""
    command += f"<p>Curves and hyper-parameters:</p><pre><code>{escape_html(board_command(table))}</code></pre>"
    warnings = [f"<li><strong>Warning:</strong> {escape_html(warning)}</li>" for warning in verdict.warnings]
    words = table.criterion.words
    tables = html_table(f"Jobs, ranked by {words}", configuration_rows(table))
    if table.seeded:
        tables = html_table(f"Configurations, ranked by mean {words}", configuration_rows(table))
        tables += f"<details><summary>All runs</summary>{html_table('Runs', run_rows(table))}</details>"
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        reload=RELOAD if live else "",
        title=escape_html(sweep_title(table)),
        labels="".join(f"<p>{escape_html(label)}</p>" for label in shared_labels(table)),
        headline=escape_html(verdict.headline).replace(" %", "&nbsp;%"),
        command=command,
        warnings=f"<ul>{''.join(warnings)}</ul>" if warnings else "",
        tables=tables,
        charts="\n".join(images) or f"<p>{escape_html(note)}</p>",
    )


def board_command(table: SweepTable, *, from_here: bool = False) -> str:
    """The command that shows the sweep in TensorBoard, from anywhere or from the current folder."""
    return shell_command(["tensorboard", "--logdir", str(relative(table.sweep_dir) if from_here else table.sweep_dir)])


def sweep_title(table: SweepTable) -> str:
    """The sweep's name, its size, and which data its figures are from."""
    data = " and ".join(title_of(name) for name in table.datasets)
    return f"Sweep {table.sweep_dir.name}: {len(table.jobs)} jobs" + (f" on {data}" if data else "")


def shared_labels(table: SweepTable) -> list[str]:
    """The tags and the note that all jobs have, in words."""
    found = {name: {job.labels[name] for job in table.jobs if job.results} for name in LABELS}
    return [
        f"{name.capitalize()}: {text}" for name, texts in found.items() if len(texts) == 1 for text in texts if text
    ]


def configuration_rows(table: SweepTable) -> Rows:
    """A row a ranked group, then a row for each job without a rank."""
    rows = [group_row(table, group) for group in table.ranked] + [job_row(table, job, None) for job in table.unranked]
    return drop_empty_columns(table, rows)


def run_rows(table: SweepTable) -> Rows:
    """A row a job."""
    ranks = {job.run_dir: group.rank for group in table.ranked for job in group.counted}
    return drop_empty_columns(table, [job_row(table, job, ranks.get(job.run_dir)) for job in table.jobs])


def job_row(table: SweepTable, job: Job, rank: int | None) -> dict[str, Cell]:
    """The cells of a job by column; first those that fit on a phone."""
    columns = figure_columns(table)
    figures = {spaced(name): figure_cell(table, name, job.figure(name), None) for name in columns}
    row = {"rank": Cell("" if rank is None else f"{rank}", rank), spaced(columns[0]): figures[spaced(columns[0])]}
    for key in table.varied:
        value = job.value(key)
        row[key] = Cell(show_value(value), value if is_number(value) else None)
    reason = Cell(textwrap.shorten(job.reason, 200, placeholder=" …"))
    labels = {name: Cell(textwrap.shorten(text, 80, placeholder=" …")) for name, text in job.labels.items()}
    row |= {"n": Cell(""), "status": Cell(job.status)} | figures
    return row | {"folder": Cell(job.folder)} | labels | {"reason": reason}


def group_row(table: SweepTable, group: RankedGroup) -> dict[str, Cell]:
    """The cells of a group by column: means, and what its jobs agree in."""
    row = job_row(table, group.counted[0], group.rank)
    if table.seeded:
        row[SEED] = Cell(", ".join(show_value(job.value(SEED)) for job in group.counted))
        row["n"] = Cell(f"{group.n}" if group.n == len(group.jobs) else f"{group.n} of {len(group.jobs)}", group.n)
    if group.n > 1:
        for name in figure_columns(table):
            row[spaced(name)] = figure_cell(table, name, group.mean(name), group.std(name))
        for name in LABELS:
            row[name] = Cell("; ".join(filter(None, dict.fromkeys(job.labels[name] for job in group.counted))))
        row["folder"] = Cell("")  # several; the table of runs lists them
        row["reason"] = Cell("; ".join(dict.fromkeys(job.reason for job in group.counted if job.reason)))
    return row


def drop_empty_columns(table: SweepTable, rows: Rows) -> Rows:
    """Rows without the columns that say nothing: empty in all rows, or labels that the title has already."""
    shared = [label.partition(":")[0].lower() for label in shared_labels(table)]
    optional = ("n", "reason", *LABELS)
    kept = [name for name in rows[0] if name not in optional or any(row[name].text for row in rows)] if rows else []
    return [{name: row[name] for name in kept if name not in shared} for row in rows]


def spaced(column: str) -> str:
    """The header of a column of figures."""
    return column if "/" in column else column.replace("_", " ")


def figure_cell(table: SweepTable, name: str, mean: float | None, std: float | None) -> Cell:
    """A figure of results.json as people read it."""
    if mean is None:
        return Cell("")
    if name == table.criterion.column:
        return Cell(table.criterion.shown(mean, std), mean)
    if name.endswith("_accuracy"):
        return Cell(format_percent(mean, std), mean)
    if name.endswith("_loss"):
        return Cell(f"{mean:.4f}" if std is None else f"{mean:.4f} ± {std:.4f}", mean)
    return Cell(f"{mean:.1f}" if name == "seconds" else f"{mean:.3g}", mean)


def html_table(caption: str, rows: Rows) -> str:
    """A table that the script of the page sorts by a click on a header."""
    if not rows:
        return "<p>No job is known yet.</p>"
    names = [name for name in rows[0] if name != "reason"]  # shown below the status
    head = "".join(html_header(name, any(row[name].number is not None for row in rows)) for name in names)
    body = "\n".join(f"<tr>{''.join(html_cell(name, row) for name in names)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape_html(caption)}">\n'
        f"<table><caption>{escape_html(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def html_header(name: str, is_numeric: bool) -> str:
    """A header, a button that the tab key reaches too; long keys may break after a dot."""
    text = escape_html(name).replace(".", ".<wbr>")
    kind = ' class="number"' if is_numeric else ""
    sort = ' aria-sort="ascending"' if name == "rank" else ""  # the order of the rows at first
    return f'<th scope="col"{kind}{sort}><button type="button">{text}</button></th>'


def html_cell(name: str, row: dict[str, Cell]) -> str:
    """A cell, with the number that the script sorts it by."""
    text = escape_html(row[name].text)
    if row[name].number is not None:
        return f'<td class="number" data-number="{row[name].number!r}">{text}</td>'
    if name == "status":
        reason = f"<small>{escape_html(row['reason'].text)}</small>" if "reason" in row else ""
        return f'<td class="status {text.replace(" ", "-")}"><span>{text}</span>{reason}</td>'
    return f"<td>{text}</td>"
