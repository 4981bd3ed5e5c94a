"""A run folder as Python and notebooks see it."""

import json
import os
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import QUIET, SMALL
from filelock import FileLock
from matplotlib.figure import Figure

import fmnist_lit
from fmnist_lit.run.files import write_json

VOID = ("img", "br", "wbr")


class Page(HTMLParser):
    """Reads a page, and holds it to closing what it opens and to loading nothing."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        assert tag not in ("script", "link", "iframe")
        assert all(not name.startswith("on") for name, _ in attrs)
        assert all(value.startswith("data:image/png;base64,") for name, value in attrs if name in ("src", "href"))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def run(copied):
    return fmnist_lit.load_run(copied)


def test_figures_are_numbers_and_what_was_not_evaluated_is_none(run):
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert all(type(row["epoch"]) is int and type(row["val_loss"]) is float for row in run.metrics)
    assert run.metrics[-1]["val_accuracy"] <= run.results["val_accuracy"]
    (run.folder / "metrics.csv").write_text("epoch,val_loss,lr\n1,,0.1\n2,nan,0.1\n")
    first, second = run.metrics
    assert first == {"epoch": 1, "val_loss": None, "lr": 0.1}
    assert second["val_loss"] != second["val_loss"]
    (run.folder / "metrics.csv").unlink()
    assert run.metrics == []


def test_metrics_are_a_table_for_pandas(run):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(run.metrics)
    assert list(table["epoch"]) == [1, 2]
    assert table["val_accuracy"].dtype == float


def test_classifier_is_the_trained_one(run):
    images = np.zeros((3, 28, 28), np.uint8)
    assert len(run.classifier().predict(images).labels) == 3


@pytest.mark.parametrize("held", [True, False])
def test_run_that_was_killed_is_interrupted_and_one_that_lives_runs(run, held):
    write_json(run.folder / "results.json", {"status": "running"})
    lock = FileLock(run.folder / ".lock")
    with lock:
        if not held:
            lock.release()
        assert run.status == ("running" if held else "interrupted")


@pytest.mark.parametrize(
    ("results", "told"),
    [
        ({"status": "interrupted", "signal": "SIGINT"}, "interrupted by SIGINT"),
        ({"status": "failed", "error": "OSError: <full>"}, "failed: OSError: <full>"),
        ({"status": "diverged", "diverged_step": 7}, "diverged at step 7"),
        ({}, "interrupted"),
    ],
)
def test_run_without_figures_says_why_and_on_which_data(run, results, told):
    write_json(run.folder / "results.json", results)
    page = Page(run._repr_html_())
    assert told in page.text
    assert "SYNTHETIC stand-in for Fashion-MNIST" in page.text
    assert page.tags.count("img") == 1
    assert repr(run).startswith(f"<Run: {told}")


def test_data_of_a_run_that_took_what_there_was_are_those_of_its_checkpoint(run):
    write_json(run.folder / "results.json", {"status": "interrupted"})
    file = run.folder / ".hydra" / "config.yaml"
    file.parent.mkdir()
    file.write_text("data: {source: auto}")
    assert run.data == "SYNTHETIC stand-in for Fashion-MNIST"
    shutil.rmtree(run.folder / "checkpoints")
    assert run.data == "unknown data"


NAMES = ["a b", "<img src=x onerror=alert(1)>&\"'", "größe" * 20, "two\nlines"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("name", NAMES)
def test_what_is_shown_is_escaped_and_repr_fits_a_line(run, tmp_path, name):
    run = fmnist_lit.load_run(run.folder.rename(tmp_path / name))
    page = Page(run._repr_html_())
    assert name in page.text
    assert page.tags == ["div", "pre", "img"]
    assert "test accuracy" in page.text
    shown = repr(run)
    assert shown.isprintable()
    assert len(shown) <= 100
    assert shown.endswith(f"{name[-10:]}>".replace("\n", "?"))
    assert "test accuracy" in shown


def test_partial_figures_are_called_partial(run):
    write_json(run.folder / "results.json", run.results | {"partial": "trainer.limit_test_batches=1"})
    assert "(PARTIAL)" in repr(run)
    assert "PARTIAL: trainer.limit_test_batches=1" in Page(run._repr_html_()).text
    assert "(PARTIAL)" in run.plot().get_suptitle()


def test_plot_is_a_figure_by_epoch_that_says_which_data(run):
    figure = run.plot()
    assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")
    accuracy, loss = figure.axes
    assert figure.get_suptitle().startswith("SYNTHETIC stand-in for Fashion-MNIST: test accuracy ")
    train, val, best = accuracy.lines
    assert list(train.get_ydata()) == [100 * row["train_accuracy"] for row in run.metrics]
    assert list(val.get_xdata()) == [1, 2]
    assert best.get_xdata() == [run.results["best_epoch"]]
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("accuracy (%)", "average loss")


def test_plot_of_a_run_without_an_epoch(run):
    (run.folder / "metrics.csv").unlink()
    assert run.plot().axes[0].get_xlabel() == "no epoch has ended yet"
    assert "img" not in Page(run._repr_html_()).tags


@pytest.mark.parametrize("name", ["nothing", "copy/results.json", "~nobody-here", "sweep"])
def test_folder_without_a_run_is_refused(copied, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path("sweep").mkdir()
    Path("sweep/sweep.json").write_text(json.dumps({}))
    with pytest.raises((fmnist_lit.NoSuchRunError, fmnist_lit.ConfigError), match=name):
        fmnist_lit.load_run(name)


# Sweeps


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A sweep by Python, of which a job diverged and one failed."""
    words = (*SMALL, *QUIET, "trainer.max_epochs=1", "optimizer.lr=1e-2,1e30", "loss=mse", "model.activation=relu")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("sweep"))
        return fmnist_lit.sweep(*words, "hydra.sweep.dir=R&D")


def test_sweep_has_rows_a_best_and_a_verdict(sweep):
    best, diverged = sweep.rows
    assert (best["rank"], best["optimizer.lr"], best["status"]) == (1, 0.01, "completed")
    assert (diverged["rank"], diverged["val_accuracy"], diverged["status"]) == (None, None, "diverged")
    assert type(best["best_epoch"]) is int
    assert sweep.best.folder == sweep.folder / best["folder"]
    assert sweep.best.results["val_accuracy"] == best["val_accuracy"]
    assert sweep.verdict.startswith("Best: optimizer.lr=0.01 with ")
    assert "1 of 2 jobs diverged" in sweep.verdict
    assert repr(sweep).startswith("<Sweep: 1 of 2 jobs completed, Best: optimizer.lr=0.01 with ")
    assert len(repr(sweep)) <= 100


def test_sweep_shows_its_table_verdict_and_pictures(sweep):
    assert "Sweep R&amp;D: 2 jobs on " in sweep._repr_html_()
    page = Page(sweep._repr_html_())
    assert "Sweep R&D: 2 jobs on SYNTHETIC stand-in for Fashion-MNIST" in page.text
    assert sweep.verdict in page.text
    assert page.tags.count("tr") == 3
    names = sorted(path.name for path in sweep.plots())
    assert names == sorted(path.name for path in (sweep.folder / "plots").iterdir())
    assert names == ["accuracy_optimizer.lr.png"]  # of one epoch there are no curves
    assert page.tags.count("img") == len(names)


def test_pictures_are_drawn_where_they_are_missing(sweep):
    shutil.rmtree(sweep.folder / "plots")
    assert [path.is_file() for path in fmnist_lit.load_sweep(sweep.folder).plots()] == [True]


def test_folder_without_a_sweep_is_refused(copied, tmp_path):
    for folder in (copied, tmp_path / "nothing"):
        with pytest.raises(ValueError, match="not a sweep"):
            fmnist_lit.load_sweep(folder)
