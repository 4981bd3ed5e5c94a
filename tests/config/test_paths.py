import re
from pathlib import Path, PurePosixPath

import pytest

from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import parse, path_as_typed, quoted
from fmnist_lit.config.paths import expanded


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "me"))
    return tmp_path / "me"


def value_of(word: str):
    return parse([path_as_typed(word)])[0].value()


@pytest.mark.parametrize(
    "key",
    [
        *("hydra.run.dir", "hydra.sweep.dir", "ckpt_path", "data.data_dir", "run_dir", "++hydra.run.dir"),
        *("logger.tracker.save_dir", "+hydra.launcher.submitit_folder"),
    ],
)
@pytest.mark.parametrize(
    ("typed", "rest"),
    [
        ("~", ""),
        ("~/x", "x"),
        ("~/x/", "x"),
        ("'~/x'", "x"),
        ('"~/my x"', "my x"),
        ("~/my x", "my x"),
        ("~/a=b", "a=b"),
        ("~/x(1)", "x(1)"),
    ],
)
def test_tilde_at_the_start_is_the_home(home, key, typed, rest):
    assert Path(value_of(f"{key}={typed}")) == home / rest


def test_tilde_and_a_name_is_the_home_of_that_user():
    pwd = pytest.importorskip("pwd")
    user = pwd.getpwall()[0]
    assert Path(value_of(f"data.data_dir=~{user.pw_name}/x")) == Path(user.pw_dir, "x")


def test_each_value_of_a_sweep_is_expanded(home):
    assert [str(value) for value in parse([path_as_typed("data.data_dir=~/a,~/b")])[0].sweep_string_iterator()] == [
        f"'{home}/a'",
        f"'{home}/b'",
    ]


def test_search_path_is_expanded_item_by_item(home):
    word = "hydra.searchpath=[~/a,'~/b',file://~/c,d]"
    assert value_of(word) == [f"{home}/a", f"{home}/b", f"file://{home}/c", "d"]


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("~nobody-at-all/x", "~nobody-at-all is no user's home"),
        ("a/~/x", "~ is a home at the start"),
        ("./~", "~ is a home at the start"),
        ("$HOME/x", "$HOME is not expanded"),
        ("'$HOME/x'", "$HOME is not expanded"),
        ("%USERPROFILE%\\x", "%USERPROFILE% is not expanded"),
        ("$env:HOME/x", "$env:HOME is not expanded"),
    ],
)
@pytest.mark.parametrize("key", ["hydra.run.dir", "hydra.sweep.dir", "data.data_dir", "ckpt_path"])
def test_what_would_make_a_dangerous_folder_is_refused(key, typed, told):
    with pytest.raises(ConfigError, match=re.escape(told)) as caught:
        path_as_typed(f"{key}={typed}")
    assert str(caught.value).startswith(f"{key}={typed}: ")


@pytest.mark.parametrize("key", ["hydra.run.dir", "data.data_dir", "ckpt_path"])
@pytest.mark.parametrize(
    ("typed", "path"),
    [
        ("C:\\data", "C:\\data"),
        ("C:/data", "C:/data"),
        ("C:\\data\\", "C:\\data\\"),
        ("C:\\new (1)\\x", "C:\\new (1)\\x"),
        ("\\\\server\\share", "\\\\server\\share"),
        ("'C:\\data'", "C:\\data"),
        ("'C:\\data\\'", "C:\\data\\"),
        ("2024", "2024"),
        ("a=b", "a=b"),
        ("a\\=b", "a=b"),
        ("${oc.env:X,data}", "${oc.env:X,data}"),
    ],
)
def test_path_is_taken_as_it_is_typed(key, typed, path):
    assert value_of(f"{key}={typed}") == path


@pytest.mark.parametrize(
    "word", ["ckpt_path=null", "data.data_dir=a,b", "seed=1", "~callbacks.progress_bar", "loss=mse"]
)
def test_other_words_are_left_alone(word):
    assert path_as_typed(word) == word


@pytest.mark.parametrize(
    "path", ["C:\\data", "C:\\data\\", "a'b", "a\\'b", "x\\\\y", "\\", "a\\\\'", 'd"q', "a b", "größe"]
)
def test_quoted_path_is_the_same_path(path):
    assert parse([f"a={quoted(PurePosixPath(path))}"])[0].value() == path


def test_path_without_a_home_is_left_alone():
    assert expanded("a~/x~", "key=a~/x~") == "a~/x~"
