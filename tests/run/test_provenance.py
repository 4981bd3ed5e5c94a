import json
import subprocess
from importlib.metadata import version

import torch

import fmnist_lit
from fmnist_lit.run import provenance
from fmnist_lit.run.provenance import commit, processor


def test_provenance_is_plain_and_names_the_versions():
    made_with = provenance.provenance()
    assert json.loads(json.dumps(made_with)) == made_with
    assert made_with["torch"] == torch.__version__
    assert made_with["processor"]


def test_package_that_is_not_installed_has_no_version(monkeypatch):
    assert provenance.own_version() == fmnist_lit.__version__
    monkeypatch.setattr(provenance, "version", lambda _: version("no_such_package"))
    assert provenance.own_version() is None


def test_commit_is_that_of_the_checkout_and_says_what_was_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "provenance.py").write_text("a")
    for words in (["init", "-q"], ["commit", "-qm", "empty", "--allow-empty"]):
        subprocess.run([*git, *words], check=True)
    assert commit() is None  # it is not part of that repository
    for words in (["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
    assert head.startswith(commit())
    (tmp_path / "provenance.py").write_text("b")
    assert commit().endswith("-dirty")


def test_processor_is_named_without_proc(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
    assert processor() == "a GPU"
