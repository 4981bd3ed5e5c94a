import csv
import io
import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser

from fmnist_lit.config.criterion import DEFAULT
from fmnist_lit.run.answers import pack, write_answers
from fmnist_lit.sweep.__main__ import main
from fmnist_lit.sweep.summary import Summary, summarize
from fmnist_lit.sweep.table import NotASweepError, collect

PNG = b"\x89PNG\r\n\x1a\n"


class Sweep:
    """A fabricated sweep folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)

    def add(self, *overrides: str, status: str = "completed", val: Any = None, name: str = "", **results: Any) -> Path:
        """A job's folder; figures other than ``val`` follow from it unless given."""
        run_dir = self.folder / (name or ",".join(overrides))
        (run_dir / ".hydra").mkdir(parents=True)
        (run_dir / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides))
        (run_dir / ".hydra" / "config.yaml").write_text(
            "seed: 0\ndata: {val_size: 5000, batch_size: 64}\noptimizer: {}\n"
        )
        figures = {"status": status, "seed": 0, "val_accuracy": val, "val_loss": None, "test_accuracy": None}
        if status == "completed":
            figures |= {"dataset": "fashion_mnist", "test_accuracy": val, "val_loss": 0.5, "test_loss": 0.6}
            figures |= {"best_epoch": 2, "epochs": 2, "seconds": 1.5}
        (run_dir / "results.json").write_text(json.dumps(figures | results))
        rows = "".join(f"{epoch},{0.1 * epoch},0.5\n" for epoch in (1, 2))
        (run_dir / "metrics.csv").write_text(f"epoch,val_accuracy,val_loss\n{rows}")
        return run_dir

    def plan(self, varied: list[str], jobs: dict[str, list[str]], command: str = "python -m fmnist_lit -m") -> None:
        """sweep.json, as the launcher writes it."""
        listed = [{"folder": folder, "overrides": overrides} for folder, overrides in jobs.items()]
        (self.folder / "sweep.json").write_text(json.dumps({"command": command, "varied": varied, "jobs": listed}))

    def summarize(self, **options: Any) -> Summary:
        """Without charts unless asked for."""
        return summarize([self.folder], **{"charts": False, **options})

    def rows(self) -> list[dict[str, str]]:
        """summary.csv as it is."""
        with open(self.folder / "summary.csv", newline="") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return Sweep(tmp_path / "sweep")


def warnings_about(summary: Summary, word: str) -> list[str]:
    return [warning for warning in summary.verdict.warnings if word in warning]


def test_seeds_without_validation_are_averaged_on_the_test_set(sweep):
    for seed, accuracy in enumerate((0.90, 0.91, 0.95)):
        sweep.add(f"seed={seed}", seed=seed, test_accuracy=accuracy)
    headline = sweep.summarize().verdict.headline
    assert headline.startswith("Nothing is ranked: no job has a validation accuracy")
    assert headline.endswith("Test accuracy: 92.00 ± 2.65 % (mean ± standard deviation of 3 seeds).")


def test_the_test_set_does_not_choose_where_there_is_no_validation(sweep):
    for lr, accuracy in (("1e-3", 0.90), ("1e-2", 0.95)):
        sweep.add(f"optimizer.lr={lr}", test_accuracy=accuracy)
    verdict = sweep.summarize().verdict
    assert verdict.headline.startswith("Nothing is ranked")
    assert "Test accuracy" not in verdict.headline
    assert verdict.command is None


def test_ranks_by_validation_accuracy_never_by_test(sweep):
    sweep.add("optimizer.lr=1e-3", val=0.80, test_accuracy=0.99, test_loss=0.01)
    sweep.add("optimizer.lr=1e-2", val=0.90, test_accuracy=0.70, test_loss=9.0)
    sweep.add("optimizer.lr=1e-1", val=0.70, test_accuracy=0.98)
    summary = sweep.summarize()
    assert [(row["rank"], row["optimizer.lr"]) for row in sweep.rows()] == [("1", "0.01"), ("2", "0.001"), ("3", "0.1")]
    assert summary.verdict.headline == (
        "Best: optimizer.lr=0.01 with 90.00 % validation accuracy and 70.00 % test accuracy."
    )


def test_ties_go_to_the_lower_validation_loss_then_to_the_earlier_job(sweep):
    jobs = {f"{lr}": [f"optimizer.lr={lr}"] for lr in (4, 3, 2, 1)}
    for name, overrides in jobs.items():
        sweep.add(*overrides, name=name, val=0.8, val_loss=0.4 if name == "2" else 0.5)
    sweep.plan(["optimizer.lr"], jobs)
    sweep.summarize()
    assert [row["folder"] for row in sweep.rows()] == ["2", "4", "3", "1"]


def test_only_what_varied_is_a_column_and_numbers_are_numbers(sweep):
    sweep.add("optimizer.lr=1e-3", "trainer.max_epochs=2", "optimizer=adam", val=0.8)
    sweep.add("optimizer.lr=0.01", "trainer.max_epochs=2", "optimizer=sgd", val=0.7)
    table = sweep.summarize().table
    assert table.varied == ["optimizer.lr", "optimizer"]
    assert table.numbers == ["optimizer.lr"]
    assert table.categories == ["optimizer"]
    assert table.values("optimizer.lr") == [0.001, 0.01]
    assert "trainer.max_epochs" not in sweep.rows()[0]


def test_equal_numbers_are_one_value_and_close_ones_are_two(sweep):
    for index, (lr, val) in enumerate((("1", 0.5), ("1.0", 0.6), ("0.12345678", 0.7), ("0.12345679", 0.8))):
        sweep.add(f"optimizer.lr={lr}", f"seed={index}", val=val, seed=index)
    assert [group.n for group in sweep.summarize().table.ranked] == [1, 1, 2]
    assert [row["optimizer.lr"] for row in sweep.rows()] == ["0.12345679", "0.12345678", "1", "1.0"]


def test_seeds_group_into_mean_sample_standard_deviation_and_n(sweep):
    for seed, val in enumerate((0.80, 0.82, 0.84)):
        sweep.add("optimizer.lr=1", f"seed={seed}", val=val, seed=seed, test_accuracy=val - 0.1)
    for seed, val in enumerate((0.95, 0.60)):
        sweep.add("optimizer.lr=2", f"seed={seed}", val=val, seed=seed)
    sweep.add("optimizer.lr=2", "seed=2", status="diverged", seed=2, diverged_step=7)
    summary = sweep.summarize()
    rows = sweep.rows()
    assert [row["rank"] for row in rows] == ["1", "1", "1", "2", "2", ""]
    assert float(rows[0]["val_accuracy_mean"]) == pytest.approx(0.82)
    assert float(rows[0]["val_accuracy_std"]) == pytest.approx(0.02)  # n would give 0.0163
    assert float(rows[0]["test_accuracy_mean"]) == pytest.approx(0.72)
    assert [row["n"] for row in rows] == ["3", "3", "3", "2", "2", ""]
    assert "82.00 ± 2.00 % validation accuracy and 72.00 ± 2.00 % test accuracy" in summary.verdict.headline
    second = [cell.strip() for cell in summary.text.splitlines()[5].split("|")]
    assert second[1:7] == ["2", "77.50 ± 24.75 %", "2", "0, 1", "2 of 3", "completed"]


def test_a_seed_that_was_run_twice_counts_once(sweep, tmp_path):
    other = Sweep(tmp_path / "other")
    sweep.add("optimizer.lr=1", "seed=0", val=0.8)
    sweep.add("optimizer.lr=1", "seed=1", val=0.9, seed=1)
    other.add("optimizer.lr=1.0", "seed=1", val=0.9, seed=1)
    table = summarize([sweep.folder, other.folder], charts=False).table
    assert table.ranked[0].n == 2
    assert "counted once" in sweep.rows()[-1]["reason"]


def test_rows_without_a_rank_come_last_by_status_with_their_reason(sweep):
    jobs = {f"lr{lr}": [f"optimizer.lr={lr}"] for lr in range(1, 8)}
    sweep.plan(["optimizer.lr"], jobs)
    sweep.add("optimizer.lr=2", name="lr2", status="interrupted", signal="SIGTERM")
    sweep.add("optimizer.lr=3", name="lr3", status="running")
    sweep.add("optimizer.lr=4", name="lr4", status="failed", error="ValueError: no\nsuch thing")
    sweep.add("optimizer.lr=5", name="lr5", status="diverged", diverged_step=12)
    sweep.add("optimizer.lr=6", name="lr6", val=0.1)
    sweep.add("optimizer.lr=7", name="lr7", val=None)
    summary = sweep.summarize()
    assert [(row["folder"], row["rank"], row["status"], row["reason"]) for row in sweep.rows()] == [
        ("lr6", "1", "completed", ""),
        ("lr7", "", "completed", "not ranked: no validation accuracy"),
        ("lr5", "", "diverged", "the loss is not finite at step 12"),
        ("lr4", "", "failed", "ValueError: no such thing"),
        ("lr2", "", "interrupted", "by SIGTERM after epoch 2"),
        ("lr3", "", "interrupted", "killed after epoch 2"),
        ("lr1", "", "not started", ""),
    ]
    assert warnings_about(summary, "1 failed, 2 interrupted, 1 not started of 7 jobs")
    assert warnings_about(summary, "1 of 7 jobs diverged: optimizer.lr=5")


def test_a_live_sweep_has_running_jobs(sweep):
    sweep.add("optimizer.lr=1", status="running")
    (sweep.add("optimizer.lr=2") / "results.json").unlink()
    sweep.summarize(live=True)
    assert [(row["status"], row["reason"]) for row in sweep.rows()] == [
        ("running", "after epoch 2"),
        ("running", "has just started"),
    ]
    sweep.summarize()
    assert [row["status"] for row in sweep.rows()] == ["interrupted", "interrupted"]


@pytest.mark.parametrize("content", ["", '{"status": "comp', "[]", "null", '{"status": ["x"]}', '{"a": 1}', "\udcff"])
def test_a_damaged_results_file_is_an_interrupted_row(sweep, content):
    sweep.add("optimizer.lr=1", val=0.8)
    damaged = sweep.add("optimizer.lr=2", val=0.9)
    (damaged / "results.json").write_bytes(content.encode(errors="surrogateescape"))
    sweep.summarize()
    assert [(row["rank"], row["status"]) for row in sweep.rows()] == [("1", "completed"), ("", "interrupted")]
    assert "results.json is damaged" in sweep.rows()[1]["reason"]


@pytest.mark.parametrize("figure", ["NaN", "1e999", "true", '"0.9"', "[]", "{}"])
def test_a_figure_that_is_no_number_is_not_ranked(sweep, figure):
    run_dir = sweep.add("optimizer.lr=1", val=0.8)
    results = (run_dir / "results.json").read_text()
    (run_dir / "results.json").write_text(results.replace('"val_accuracy": 0.8', f'"val_accuracy": {figure}'))
    assert not sweep.summarize().table.ranked
    assert sweep.rows()[0]["val_accuracy"] == ""


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("metrics.csv", None, "metrics.csv is missing"),
        ("metrics.csv", "", "metrics.csv is empty"),
        ("metrics.csv", "epoch,val_accuracy,val_loss\n1,0.8", "metrics.csv is damaged"),
        ("metrics.csv", "epoch,val_accuracy,val_loss\nx,0.8,1\n", "metrics.csv is damaged"),
        ("metrics.csv", "\udcff\x00", "metrics.csv is damaged"),
        (".hydra/overrides.yaml", None, ".hydra/overrides.yaml is missing or damaged"),
        (".hydra/overrides.yaml", "", ".hydra/overrides.yaml is missing or damaged"),
        (".hydra/overrides.yaml", "- 'optimizer.l", ".hydra/overrides.yaml is missing or damaged"),
        (".hydra/config.yaml", None, ""),
        (".hydra/config.yaml", "data: {val_si", ""),
        (".hydra/config.yaml", "- 1", ""),
    ],
)
def test_other_damaged_files_are_told_in_the_row(sweep, file, content, reason):
    sweep.add("optimizer.lr=1", val=0.8, name="whole")
    damaged = sweep.add("optimizer.lr=2", val=0.9, name="damaged")
    (damaged / file).unlink()
    if content is not None:
        (damaged / file).write_bytes(content.encode(errors="surrogateescape"))
    sweep.summarize()
    row = next(row for row in sweep.rows() if row["folder"] == "damaged")
    assert reason in row["reason"]
    assert bool(row["rank"]) == ("overrides" not in file)  # what it ran is unknown: no winner


def test_a_job_that_diverged_before_its_first_epoch_has_no_curve_to_miss(sweep):
    for lr, content in (("1", None), ("2", "epoch,val_accuracy\n1")):
        run_dir = sweep.add(f"optimizer.lr={lr}", status="diverged")
        (run_dir / "metrics.csv").unlink()
        if content:
            (run_dir / "metrics.csv").write_text(content)
    sweep.summarize()
    assert [row["reason"] for row in sweep.rows()] == [
        "the loss is not finite",
        "the loss is not finite; metrics.csv is damaged",
    ]


@pytest.mark.parametrize("content", ["", '{"command": "x", "va', "[]", '{"command": "", "varied": [], "jobs": [3]}'])
def test_a_damaged_plan_is_a_warning(sweep, content):
    sweep.add("optimizer.lr=1", val=0.8)
    (sweep.folder / "sweep.json").write_text(content)
    summary = sweep.summarize()
    assert summary.table.ranked
    assert warnings_about(summary, "sweep.json is damaged")


def test_a_plan_without_jobs_gets_them_from_the_folders(sweep):
    sweep.plan(["optimizer.lr"], {})
    assert "No job has completed" in sweep.summarize(live=True).verdict.headline
    assert (sweep.folder / "summary.csv").read_text().startswith("rank,optimizer.lr,status,")
    sweep.add("optimizer.lr=0.02", val=0.8)
    assert "optimizer.lr=0.02" in sweep.summarize().verdict.headline


@pytest.mark.parametrize(
    ("vals", "side"),
    [
        ({1: 0.8, 2: 0.85, 3: 0.9}, "highest"),
        ({1: 0.9, 2: 0.85, 3: 0.8}, "lowest"),
        ({1: 0.8, 2: 0.9, 3: 0.8}, None),
        ({1: 0.8, 2: 0.9, 3: "diverged"}, None),
        ({1: 0.8, 2: 0.9, 3: "failed"}, "highest"),
        ({0: 0.9, 2: 0.85, 3: 0.8}, None),
        ({2: 0.9}, None),
    ],
)
def test_warns_when_the_winner_is_at_an_edge_of_its_range(sweep, vals, side):
    for value, val in vals.items():
        status = val if isinstance(val, str) else "completed"
        sweep.add(f"optimizer.momentum={value}", status=status, val=val if status == "completed" else None)
    warnings = warnings_about(sweep.summarize(), "widen the range")
    assert bool(warnings) == bool(side)
    if side:
        assert side in warnings[0]
        assert ("upwards" if side == "highest" else "downwards") in warnings[0]


def test_an_edge_is_that_of_the_winners_own_category(sweep):
    for optimizer, lr, val in (("sgd", 1, 0.5), ("sgd", 2, 0.6), ("adam", 0.1, 0.7), ("adam", 0.2, 0.8)):
        sweep.add(f"optimizer={optimizer}", f"optimizer.lr={lr}", val=val)
    assert warnings_about(sweep.summarize(), "optimizer.lr=0.2 is the highest")


def test_a_category_that_is_not_tuned_to_the_end_is_named(sweep):
    tried = {"sgd": (0.7, 0.8, 0.9), "adam": (0.9, 0.91, 0.6), "muon": (0.8, 0.7, 0.6), "rmsprop": (0.1, None, 0.05)}
    for optimizer, vals in tried.items():
        for lr, val in enumerate(vals, start=1):
            sweep.add(f"optimizer={optimizer}", f"optimizer.lr={lr}", val=val, status="completed" if val else "failed")
    summary = sweep.summarize()
    assert not warnings_about(summary, "widen the range")
    assert warnings_about(summary, "Not tuned to the end") == [
        "Not tuned to the end: optimizer.lr is best at an edge of its range for "
        "optimizer=sgd (highest, 3); optimizer=muon (lowest, 1); optimizer=rmsprop (lowest, 1)."
    ]


@pytest.mark.parametrize(
    ("behind", "val_size", "close"), [(0.0138, 5000, True), (0.0144, 5000, False), (0.03, 500, True)]
)
def test_one_seed_without_its_answers_is_compared_by_two_proportions(sweep, behind, val_size, close):
    # two accuracies near 0.85 on 5000 images: 1.96 * sqrt(2 * 0.85 * 0.15 / 5000) = 0.0140
    best = sweep.add("optimizer.lr=2", val=0.85)
    (best / ".hydra" / "config.yaml").write_text(f"data: {{val_size: {val_size}}}")
    sweep.add("optimizer.lr=3", val=0.85 - behind)
    summary = sweep.summarize()
    warnings = warnings_about(summary, "cannot be told apart from the best")
    assert bool(warnings) == close
    assert all("optimizer.lr=3" in warning and f"{val_size} validation images" in warning for warning in warnings)
    assert warnings_about(summary, "one seed knows nothing of luck in training")


def test_one_seed_with_its_answers_is_compared_image_by_image(sweep):
    for lr, wrong in ((2, range(20)), (3, range(1, 25)), (4, range(40))):
        right = [image not in wrong for image in range(200)]
        run_dir = sweep.add(f"optimizer.lr={lr}", val=sum(right) / 200)
        write_answers(run_dir, 2, pack("the same", right))
    summary = sweep.summarize()
    # 5 images against 1: 2 * (1 + 6) / 2 ** 6; a guess of ((1.960 + 0.842) ** 2 * 5.92 / 4 ** 2 + 1.92) seeds
    assert warnings_about(summary, "cannot") == [
        "This cannot be told apart from the best: optimizer.lr=3 (2.00 points behind, p = 0.22, 5 seeds). p is by "
        "McNemar's exact test on 200 validation images, corrected for the choice among 3 (Holm, all pairs). It covers "
        "the choice of the validation images; one seed knows nothing of luck in training."
    ]
    assert warnings_about(summary, "How many seeds would settle it")[0].endswith(", a guess from the images alone.")
    assert sweep.rows()[0]["p_vs_best"] == ""
    assert float(sweep.rows()[2]["p_vs_best"]) < 1e-4
    for name in ("summary.md", "summary.html"):
        assert "cannot be told apart from the best" in (sweep.folder / name).read_text()
    assert "cannot be told apart from the best" in summary.text


@pytest.mark.parametrize(("n", "p"), [(2, "0.39"), (5, "0.30")])
def test_a_gap_of_1_1_standard_errors_does_not_pass_in_silence(sweep, n, p):
    spread = [0.02 * seed - 0.01 * (n - 1) for seed in range(n)]
    error = statistics.stdev(spread) * (2 / n) ** 0.5
    for lr, mean, first_seed in ((2, 0.8, 0), (3, 0.8 - 1.1 * error, n)):
        for seed, x in enumerate(spread, start=first_seed):
            sweep.add(f"optimizer.lr={lr}", f"seed={seed}", val=mean + x, seed=seed)
    summary = sweep.summarize()
    (warning,) = warnings_about(summary, "This cannot be told apart from the best: optimizer.lr=3")
    assert f"p = {p}, " in warning
    assert f"Welch's t-test, {n} and {n} seeds" in warning
    assert warning.endswith("It covers luck in training, not the choice of the validation images.")
    assert warnings_about(summary, "How many seeds would settle it")


def test_several_seeds_that_tell_all_apart_need_no_word(sweep):
    for lr, mean in ((2, 0.8), (3, 0.6)):
        for seed, val in enumerate((mean - 0.011, mean, mean + 0.01 * lr / 2)):
            sweep.add(f"optimizer.lr={lr}", f"seed={seed}", val=val, seed=seed)
    assert not warnings_about(sweep.summarize(), "told apart")


def test_of_many_that_cannot_be_told_apart_three_are_named(sweep):
    for lr in range(6):
        sweep.add(f"optimizer.lr={lr}", val=0.85 - 0.0002 * lr)
    (warning,) = warnings_about(sweep.summarize(), "These cannot be told apart from the best")
    assert "optimizer.lr=3 (0.06 points behind, p = 1.00, over 1000 seeds); 2 more. " in warning
    assert "optimizer.lr=4" not in warning


def test_jobs_on_different_data_sets_are_not_ranked(sweep):
    sweep.add("optimizer.lr=1", val=0.8)
    sweep.add("optimizer.lr=2", val=0.9, dataset="synthetic")
    summary = sweep.summarize(charts=True)
    assert summary.table.ranked == []
    assert summary.verdict.command is None
    assert "No ranking" in summary.verdict.headline
    assert warnings_about(summary, "1 on Fashion-MNIST, 1 on SYNTHETIC")
    assert not list(sweep.folder.glob("plots/*"))


def test_the_stand_in_is_named_everywhere(sweep):
    sweep.add("optimizer.lr=1", val=0.8, dataset="synthetic")
    summary = sweep.summarize()
    assert "say nothing about Fashion-MNIST" in summary.verdict.warnings[0]
    for name in ("summary.md", "summary.html"):
        assert "SYNTHETIC stand-in" in (sweep.folder / name).read_text()
    assert sweep.rows()[0]["dataset"] == "synthetic"


NASTY = ("model.hidden_sizes=[512,256]", "+note='a \\'quoted\\' $HOME `x` & \"y\"'", "data.data_dir='/tmp/with space'")


def test_the_command_reruns_the_best_job(sweep):
    sweep.add(*NASTY, "optimizer.lr=1e-2", "ckpt_path=x/last.ckpt", "hydra.job.chdir=false", val=0.9, name="a")
    sweep.add(*NASTY, "optimizer.lr=1e-3", val=0.8, name="b")
    words = shlex.split(sweep.summarize().verdict.command)
    assert words == ["python", "-m", "fmnist_lit", *NASTY, "optimizer.lr=1e-2"]
    parsed = OverridesParser.create().parse_overrides(words[3:])
    assert [override.value() for override in parsed] == [
        [512, 256],
        "a 'quoted' $HOME `x` & \"y\"",
        "/tmp/with space",
        0.01,
    ]


def test_the_command_reruns_all_seeds_that_count(sweep):
    for seed, val in ((3, 0.8), (1, 0.9)):
        sweep.add(f"seed={seed}", "optimizer.lr=1", val=val, seed=seed)
    sweep.add("seed=2", "optimizer.lr=1", status="failed", seed=2)
    words = shlex.split(sweep.summarize().verdict.command)
    assert words[:5] == ["python", "-m", "fmnist_lit", "-m", "optimizer.lr=1"]
    assert sorted(words[5].removeprefix("seed=").split(",")) == ["1", "3"]


def test_the_command_keeps_the_configuration_folder_and_runs_a_study_once(sweep):
    jobs = {"a": ["study=lr", "optimizer.lr=1"], "b": ["study=lr", "optimizer.lr=2"]}
    sweep.plan(["optimizer.lr"], jobs, command="python -m fmnist_lit -m --config-dir 'my conf' -cn=other study=lr")
    for val, (name, overrides) in enumerate(jobs.items()):
        sweep.add(*overrides, name=name, val=0.5 + 0.1 * val)
    words = shlex.split(sweep.summarize().verdict.command)
    assert words[3:] == ["--config-dir", "my conf", "-cn=other", "study=lr", "optimizer.lr=2", "hydra.mode=RUN"]


def test_several_sweeps_are_one_table_in_the_first_folder(sweep, tmp_path):
    other = Sweep(tmp_path / "other")
    sweep.add("optimizer.lr=1", val=0.8)
    hydra = sweep.folder / "optimizer.lr=1" / ".hydra" / "hydra.yaml"
    hydra.write_text("hydra: {runtime: {choices: {optimizer: sgd}}}")
    other.add("optimizer.lr=1", "optimizer=adam", "data.batch_size=32", val=0.9)
    table = summarize([sweep.folder, other.folder, sweep.folder], charts=False).table
    assert table.varied == ["optimizer", "data.batch_size"]
    rows = sweep.rows()
    assert [(row["folder"], row["optimizer"], row["data.batch_size"]) for row in rows] == [
        ("../other/optimizer.lr=1,optimizer=adam,data.batch_size=32", "adam", "32"),
        ("optimizer.lr=1", "sgd", "64"),  # from its configuration
    ]
    assert all((sweep.folder / row["folder"]).is_dir() for row in rows)
    assert not (other.folder / "summary.csv").exists()


HOSTILE = "<img src=x onerror=alert(1)>|`a`*b*\"'&amp;](javascript:1)"


class Page(HTMLParser):
    """Tags that are open, attributes and text as a browser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img", "wbr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def hostile_sweep(sweep: Sweep) -> None:
    for value in ("1", "2"):
        note = HOSTILE.replace("'", "")
        sweep.add(f"+note='{note}{value}'", name=f"{HOSTILE}\n{value}", val=0.8, dataset=HOSTILE)
    sweep.add("+note=3", status="failed", error=f"{HOSTILE}\n| a | b |\n", name="failed")


def test_html_is_well_formed_and_needs_nothing_else(sweep):
    hostile_sweep(sweep)
    sweep.summarize()
    text = (sweep.folder / "summary.html").read_text()
    page = Page(text)
    assert page.open == []
    assert "img" not in page.tags
    assert page.tags.count("script") == 1
    assert HOSTILE in page.text
    assert ("name", "viewport") in page.attributes
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.search(r"https?://|//\w+\.\w+/", text)


def test_every_header_is_a_button(sweep):
    sweep.add("optimizer.lr=1", val=0.8)
    sweep.summarize()
    page = Page((sweep.folder / "summary.html").read_text())
    assert page.tags.count("th") == page.tags.count("button") == 9
    assert ("aria-sort", "ascending") in page.attributes


def test_markdown_tables_are_well_formed(sweep):
    hostile_sweep(sweep)
    sweep.summarize()
    text = (sweep.folder / "summary.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + 3
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in table]
    assert len(set(cells)) == 1
    assert re.fullmatch(r"(\| -+[:-] )+\|", table[1])
    assert all(line.startswith("    ") for line in text.splitlines() if "<img" in line)  # in the command's code block


def test_csv_is_rectangular_and_a_row_a_job(sweep):
    hostile_sweep(sweep)
    sweep.plan(["note"], {"not yet": ["+note=4"]})
    sweep.summarize()
    rows = list(csv.reader(io.StringIO((sweep.folder / "summary.csv").read_text())))
    assert len(rows) == 1 + 4
    assert {len(row) for row in rows} == {len(rows[0])}
    assert len(set(rows[0])) == len(rows[0])
    reasons = [row[rows[0].index("reason")] for row in rows]
    assert not any("\n" in reason for reason in reasons)


def test_a_folder_name_that_is_not_utf8_does_not_matter(sweep):
    sweep.add("optimizer.lr=1", val=0.8, name="\udcff")
    sweep.summarize()
    assert "\\udcff" in (sweep.folder / "summary.csv").read_text(encoding="utf-8")


def test_orphans_of_a_killed_writer_are_removed_unless_others_may_write(sweep):
    sweep.add("optimizer.lr=1", val=0.8)
    orphan = sweep.folder / ".summary.csv.1.tmp"
    orphan.touch()
    sweep.summarize(live=True)
    assert orphan.exists()
    sweep.summarize()
    assert not orphan.exists()


def test_starts_fast_and_imports_nothing_heavy(sweep):
    sweep.add("optimizer.lr=1", val=0.8)
    code = (
        "import sys; from pathlib import Path; from fmnist_lit.sweep.summary import summarize;"
        f"summarize([Path({str(sweep.folder)!r})], charts=False);"
        "print(sorted({'torch', 'lightning', 'matplotlib', 'numpy', 'tensorboard'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_command_line_prints_table_and_verdict(sweep, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    sweep.add("optimizer.lr=1", val=0.8)
    sweep.add("optimizer.lr=2", val=0.9)
    monkeypatch.setenv("HOME", str(sweep.folder.parent))
    monkeypatch.setenv("USERPROFILE", str(sweep.folder.parent))
    assert main([f"~/{sweep.folder.name}"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"\| *1 \| *90.00 % \| *2 \| completed \|", out)
    assert "Run it again: python -m fmnist_lit optimizer.lr=2\n" in out
    assert "Warning: optimizer.lr=2 is the highest" in out


@pytest.mark.parametrize("make", ["nothing", "empty", "file", "run"])
def test_a_folder_that_is_no_sweep_is_one_line_and_exit_code_2(tmp_path, capsys, make):
    folder = tmp_path / "folder"
    if make == "file":
        folder.touch()
    elif make != "nothing":
        folder.mkdir()
    if make == "run":
        (folder / "results.json").write_text("{}")
    assert main([str(folder)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {folder}: not a sweep")
    assert captured.err.count("\n") == 1
    with pytest.raises(NotASweepError):
        collect([folder])


def grid(sweep: Sweep) -> None:
    for lr in (0.001, 0.01, 0.1):
        for batch_size in (32, 64):
            for optimizer in ("sgd", "adam"):
                status = "diverged" if lr == 0.1 and batch_size == 32 else "completed"
                val = 0.7 + lr + batch_size / 1000 if status == "completed" else None
                sweep.add(
                    f"optimizer.lr={lr}",
                    f"data.batch_size={batch_size}",
                    f"optimizer={optimizer}",
                    status=status,
                    val=val,
                )


def test_charts_are_drawn_and_embedded(sweep):
    pytest.importorskip("matplotlib")
    grid(sweep)
    sweep.summarize(charts=True)
    drawn = {path.stem: path.read_bytes() for path in sweep.folder.glob("plots/*")}
    assert drawn.keys() == {
        "heatmap_optimizer.lr_data.batch_size",
        "accuracy_optimizer.lr",
        "accuracy_data.batch_size",
        "bars_optimizer",
        "curves",
    }
    assert all(content.startswith(PNG) for content in drawn.values())
    page = Page((sweep.folder / "summary.html").read_text())
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    text = (sweep.folder / "summary.md").read_text()
    assert all((sweep.folder / link).is_file() for link in re.findall(r"!\[.*\]\((.*)\)", text))
    assert "Fashion-MNIST" in re.search(r"!\[(.*)\]", text)[1]


def test_charts_of_before_go_and_others_stay(sweep):
    pytest.importorskip("matplotlib")
    sweep.add("optimizer.lr=1", val=0.8)
    (sweep.folder / "plots").mkdir()
    for name in ("bars_optimizer.png", "mine.png"):
        (sweep.folder / "plots" / name).touch()
    sweep.summarize(charts=True)
    assert {path.name for path in sweep.folder.glob("plots/*")} == {"mine.png", "curves.png"}


def test_one_epoch_is_no_curve(sweep):
    pytest.importorskip("matplotlib")
    for lr in ("0.1", "0.2"):
        (sweep.add(f"optimizer.lr={lr}", val=0.8) / "metrics.csv").write_text("epoch,val_accuracy\n1,0.8\n")
    sweep.summarize(charts=True)
    assert {path.name for path in sweep.folder.glob("plots/*")} == {"accuracy_optimizer.lr.png"}


def test_hostile_names_can_be_drawn(sweep):
    pytest.importorskip("matplotlib")
    for seed in (0, 1):
        for note in ("$\\foo{$", "漢字 \\n $x$", "x" * 500):
            sweep.add(
                f"+remark='{note}'", f"seed={seed}", f"+a/../b={seed}", val=0.8, seed=seed, name=f"{hash(note)}{seed}"
            )
    sweep.summarize(charts=True)
    assert {path.name for path in sweep.folder.glob("plots/*")} >= {"bars_remark.png", "curves.png"}


def test_seeds_alone_and_a_random_search_have_charts(tmp_path):
    pytest.importorskip("matplotlib")
    seeds, search = Sweep(tmp_path / "seeds"), Sweep(tmp_path / "search")
    for index in range(6):
        seeds.add(f"seed={index}", val=0.8 + index / 100, seed=index)
        search.add(f"optimizer.lr={0.001 * 3**index}", f"regularization.l1={index / 1000}", val=0.8 + index / 100)
    seeds.summarize(charts=True)
    search.summarize(charts=True)
    assert {path.stem for path in seeds.folder.glob("plots/*")} == {"seeds", "curves"}
    assert {path.stem for path in search.folder.glob("plots/*")} == {
        "accuracy_optimizer.lr",
        "accuracy_regularization.l1",
        "curves",
    }


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.001, 0.01, 0.1], "log"),
        ([16, 32, 64], "log"),
        ([1, 2, 3], "linear"),
        ([10, 11, 12], "linear"),
        ([0.5, 0.9, 0.99], "linear"),
        ([0, 1e-5, 1e-3], "symlog"),
        ([-1, 1, 100], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_the_values_ask_for_it(values, scale):
    pytest.importorskip("matplotlib")
    from fmnist_lit.sweep import charts

    _, ax = charts.figure_and_axes(4)
    charts.scale_axis(ax, values)
    assert ax.get_xscale() == scale


@pytest.mark.parametrize(
    ("shares", "scale", "ticks"),
    [
        ([86.1, 87.9], "linear", {86.5, 87, 87.5}),
        ([10.3, 85, 87.6], "function", {20, 50, 80, 86}),
        ([10, 100], "function", {99}),
        ([87], "linear", set()),
        ([], "linear", set()),
    ],
)
def test_failures_do_not_press_good_accuracies_into_a_line(shares, scale, ticks):
    pytest.importorskip("matplotlib")
    from fmnist_lit.sweep import charts

    _, ax = charts.figure_and_axes(4)
    if shares:
        ax.plot(range(len(shares)), shares)
    charts.scale_levels(ax, DEFAULT, free=0.1)
    assert ax.get_yscale() == scale
    assert set(ax.get_yticks()) >= ticks
    low, *places, high = ax.yaxis.get_transform().transform([ax.get_ylim()[0], *shares, ax.get_ylim()[1]])
    assert all(low < place < high for place in places)


def test_without_matplotlib_there_is_a_summary_without_charts(sweep, monkeypatch):
    monkeypatch.delattr("fmnist_lit.sweep.charts", raising=False)
    monkeypatch.setitem(sys.modules, "fmnist_lit.sweep.charts", None)
    sweep.add("optimizer.lr=1", val=0.8)
    sweep.summarize(charts=True)
    assert "No charts: " in (sweep.folder / "summary.md").read_text()


def test_of_a_long_table_the_screen_shows_the_best_and_the_files_all(sweep):
    for lr in range(1, 61):
        sweep.add(f"optimizer.lr={lr}", val=lr / 100)
    text = sweep.summarize().text
    assert [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("|")][2:] == [
        str(lr) for lr in range(60, 40, -1)
    ]
    assert "… and 40 more rows in summary.csv and summary.html" in text
    assert "Best: optimizer.lr=60" in text
    assert len(sweep.rows()) == 60
    assert (sweep.folder / "summary.html").read_text().count("<tr>") == 61


def test_a_page_loads_itself_anew_while_the_sweep_is_alive(sweep):
    sweep.add("optimizer.lr=1", val=0.8)
    sweep.summarize(live=True)
    assert 'http-equiv="refresh"' in (sweep.folder / "summary.html").read_text()
    sweep.summarize()
    assert 'http-equiv="refresh"' not in (sweep.folder / "summary.html").read_text()


def test_a_sweep_is_followed_until_nobody_leads_it(sweep, monkeypatch, capsys):
    sweep.add("optimizer.lr=1", val=0.8)
    looks = []

    def sleep(seconds: float) -> None:
        looks.append((sweep.folder / "summary.csv").exists())
        if len(looks) == 3:
            lock.release()

    monkeypatch.setattr("fmnist_lit.sweep.__main__.time.sleep", sleep)
    lock = FileLock(sweep.folder / ".lock")
    lock.acquire()
    assert main([str(sweep.folder), "--follow"]) == 0
    assert looks == [False] * 3
    assert "The only configuration has 80.00 % validation accuracy" in capsys.readouterr().out


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_sorts_the_table(sweep):
    for lr, seconds in ((1, 10.0), (2, 9.0), (3, 100.0)):
        sweep.add(f"optimizer.lr={lr}", val=0.9 - lr / 10, seconds=seconds)
    sweep.add("optimizer.lr=4", status="failed", error="x")
    sweep.summarize()
    script = """<script>
    const button = [...document.querySelectorAll("th button")].find((b) => b.textContent === "seconds");
    const read = (row) => row.cells[3].textContent[0] + row.cells[2].textContent;
    const seen = [];
    for (let i = 0; i < 2; i++) {
      button.click();
      seen.push([...document.querySelectorAll("tbody tr")].map(read) + button.parentElement.ariaSort);
    }
    document.title = seen.join(" ");
    </script></body>"""
    page = sweep.folder / "page.html"
    page.write_text((sweep.folder / "summary.html").read_text().replace("</body>", script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=2000", "--dump-dom"]
    done = subprocess.run(["chromium", *options, page.as_uri()], capture_output=True, text=True, timeout=60, check=True)
    assert "<title>c2,c1,c3,f4ascending c3,c1,c2,f4descending</title>" in done.stdout


# By another figure than the validation accuracy


def by_loss(value: float) -> dict[str, Any]:
    return {"metric": "loss/val", "mode": "min", "value": value}


def by_f1(value: float | None) -> dict[str, Any]:
    return {"metric": "f1/val", "mode": "max", "value": value}


def test_ranks_by_what_the_runs_were_selected_by(sweep):
    for lr, loss, accuracy in (("0.1", 0.4, 0.8), ("0.2", 0.3, 0.7), ("0.3", 0.5, 0.9)):
        sweep.add(f"optimizer.lr={lr}", val=accuracy, val_loss=loss, select=by_loss(loss))
    summary = sweep.summarize(charts=True)
    assert [row["optimizer.lr"] for row in sweep.rows()] == ["0.2", "0.1", "0.3"]
    assert summary.verdict.headline == (
        "Best: optimizer.lr=0.2 with validation loss 0.3000, 70.00 % validation accuracy and 70.00 % test accuracy."
    )
    assert (sweep.folder / "summary.md").read_text().split("\n| ")[1].startswith("rank | val loss | optimizer.lr | ")
    assert "Jobs, ranked by validation loss" in (sweep.folder / "summary.html").read_text()
    assert {chart.name for chart in sweep.folder.glob("plots/*")} == {"figure_optimizer.lr.png", "curves.png"}
    assert "Validation loss by lr" in (sweep.folder / "summary.md").read_text()
    assert "Validation loss over epochs" in (sweep.folder / "summary.md").read_text()


def test_one_seed_of_another_figure_is_said_to_be_untested(sweep):
    for lr, loss in (("0.1", 0.4), ("0.2", 0.3)):
        sweep.add(f"optimizer.lr={lr}", val=0.8, val_loss=loss, select=by_loss(loss))
    summary = sweep.summarize()
    assert warnings_about(summary, "tested") == [
        "Not tested against the best: optimizer.lr=0.1 (0.1000 behind). With one seed each there is a test for "
        "select.metric=accuracy/val only; run several, such as seed=0,1,2."
    ]
    assert not warnings_about(summary, "told apart")
    assert [row["p_vs_best"] for row in sweep.rows()] == ["", ""]


def test_several_seeds_of_another_figure_are_tested_on_it(sweep):
    for lr, values in ((1, (0.8, 0.82, 0.84)), (2, (0.79, 0.83, 0.80))):
        for seed, value in enumerate(values):
            sweep.add(f"optimizer.lr={lr}", f"seed={seed}", val=0.5, seed=seed, select=by_f1(value))
    summary = sweep.summarize(charts=True)
    (warning,) = warnings_about(
        summary, "This cannot be told apart from the best: optimizer.lr=2 (0.0133 behind, p = 0."
    )
    assert "p is by the paired t-test over 3 seeds" in warning
    assert "with f1/val 0.8200 ± 0.0200, 50.00 ± 0.00 % validation accuracy and " in summary.verdict.headline
    row = sweep.rows()[0]
    assert (float(row["f1/val"]), float(row["f1/val_mean"])) == (pytest.approx(0.8), pytest.approx(0.82))


def test_a_job_without_the_figure_that_selects_is_not_ranked(sweep):
    sweep.add("optimizer.lr=1", val=0.8, select=by_f1(0.5))
    sweep.add("optimizer.lr=2", val=0.9, select=by_f1(None))
    sweep.summarize()
    assert [(row["rank"], row["reason"]) for row in sweep.rows()] == [("1", ""), ("", "not ranked: no f1/val")]


def test_jobs_that_were_selected_by_different_figures_are_not_ranked(sweep):
    sweep.add("optimizer.lr=1", val=0.8)  # as version 0.1 wrote it: by accuracy
    sweep.add("optimizer.lr=2", val=0.9, select=by_loss(0.5))
    summary = sweep.summarize(charts=True)
    assert summary.verdict.headline == (
        "No ranking: the jobs were chosen by different figures: the highest validation accuracy, the lowest validation "
        "loss."
    )
    assert not summary.table.ranked
    assert "chosen by the lowest validation loss, other jobs were not: not ranked" in sweep.rows()[1]["reason"]


@pytest.mark.parametrize("losses", [(0.4, 0.3, 0.5, 0.6), (0.3, 400.0, 2.0, 30.0)])
def test_losses_are_drawn_whatever_their_magnitude(sweep, losses):
    pytest.importorskip("matplotlib")
    for (lr, size), loss in zip(((1, 32), (2, 32), (1, 64), (2, 64)), losses, strict=True):
        run_dir = sweep.add(
            f"optimizer.lr={lr}", f"data.batch_size={size}", val=0.5, val_loss=loss, select=by_loss(loss)
        )
        (run_dir / "metrics.csv").write_text(f"epoch,val_accuracy,val_loss\n1,0.5,{2 * loss}\n2,0.5,{loss}\n")
    sweep.summarize(charts=True)
    assert len(list(sweep.folder.glob("plots/*.png"))) == 4


# Tags and notes


def test_tags_and_notes_are_columns_and_no_parameters(sweep):
    sweep.add("optimizer.lr=1", "tags=[a,b]", val=0.8, tags=["a", "b"], note="the first, with | in it")
    sweep.add("optimizer.lr=2", "tags=[a]", val=0.9, tags=["a"], note=None)
    summary = sweep.summarize()
    assert summary.table.varied == ["optimizer.lr"]
    assert [(row["tags"], row["note"]) for row in sweep.rows()] == [("a", ""), ("a, b", "the first, with | in it")]
    for name in ("summary.md", "summary.html"):
        assert "a, b" in (sweep.folder / name).read_text()
    assert "Tags:" not in summary.text


def test_tags_and_a_note_that_all_jobs_have_are_said_once(sweep):
    for lr in (1, 2):
        sweep.add(f"optimizer.lr={lr}", val=0.8, tags=["a", "b"], note="<b>why</b>")
    summary = sweep.summarize()
    assert summary.text.split("\n")[1:3] == ["Tags: a, b", "Note: <b>why</b>"]
    assert "| tags" not in summary.text
    assert "<p>Note: &lt;b&gt;why&lt;/b&gt;</p>" in (sweep.folder / "summary.html").read_text()


def test_runs_without_tags_have_no_column_for_them(sweep):
    sweep.add("optimizer.lr=1", val=0.8)
    sweep.summarize()
    assert {"tags", "note"} & sweep.rows()[0].keys() == set()
