import json

import pytest
from photo_files import GARMENT, png

from fmnist_lit import predict
from fmnist_lit.evaluate import __main__ as evaluate
from fmnist_lit.export import __main__ as export
from fmnist_lit.run.find import NoSuchRunError, find_trained


def test_run_means_the_checkpoint_its_results_are_of(trained_run):
    results = json.loads((trained_run / "results.json").read_text())
    found = find_trained(trained_run)
    assert (found.file, found.results) == (trained_run / results["checkpoint"], results)


def test_checkpoint_that_the_results_are_not_of_has_none(trained_run):
    found = find_trained(trained_run / "checkpoints" / "last.ckpt")
    assert (found.run_dir, found.results) == (trained_run, {})


def test_run_without_results_means_its_last_checkpoint(copied):
    (copied / "results.json").unlink()
    (copied / "checkpoints" / "best.ckpt").unlink()
    assert find_trained(copied).file.name == "last.ckpt"


def test_sweep_folder_is_refused_with_the_name_of_a_run_in_it(copied):
    with pytest.raises(NoSuchRunError, match=r"name one of the runs in it, such as .*copy"):
        find_trained(copied.parent)


@pytest.mark.parametrize("main", [evaluate.main, predict.main, export.main])
def test_run_that_does_not_exist_is_a_bad_argument(main, tmp_path, capsys):
    rest = {predict.main: ["a.png"], export.main: ["--format", "onnx"]}.get(main, [])
    assert main([str(tmp_path / "nowhere"), *rest]) == 2
    assert "nowhere: no such run folder or checkpoint" in capsys.readouterr().err


@pytest.fixture
def home(copied, monkeypatch):
    monkeypatch.setenv("HOME", str(copied.parent))
    monkeypatch.setenv("USERPROFILE", str(copied.parent))
    return copied.parent


@pytest.mark.parametrize("rest", ["", "/", "/checkpoints/last.ckpt"])
def test_run_in_the_home_is_found(copied, home, rest):
    assert find_trained(f"~/{copied.name}{rest}").run_dir == copied


def test_verbs_read_and_write_in_the_home(copied, home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    png(home / "shirt.png", GARMENT)
    run = f"~/{copied.name}"
    assert predict.main([run, "~/shirt.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["file"] == str(home / "shirt.png")
    assert export.main([run, "--format=torch", "--output=~/made/a.pt2"]) == 0
    assert (home / "made" / "a.pt2").is_file()
    assert not (home / "~").exists()


@pytest.mark.parametrize("path", ["~nobody-at-all/a.pt2", "$HOME/a.pt2"])
def test_output_of_a_dangerous_name_is_a_bad_argument(copied, home, capsys, monkeypatch, path):
    monkeypatch.chdir(home)
    assert export.main([str(copied), "--format=torch", f"--output={path}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: --output {path}: ")
    assert [entry.name for entry in home.iterdir()] == [copied.name]


def test_latest_is_the_newest_run_where_new_ones_go(copied, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["latest"]) == 2
    assert "error: latest: there is no run with a checkpoint in outputs" in capsys.readouterr().err
    runs = tmp_path / "outputs" / "runs"
    runs.mkdir(parents=True)
    copied.rename(runs / "newest")
    assert find_trained("latest").run_dir == runs / "newest"
    told = capsys.readouterr()
    assert told.out == ""  # --json stays JSON
    assert told.err.startswith("latest is ")
    assert "newest" in told.err
