import shlex
import sys

import pytest

from fmnist_lit.run.names import shell_command, slug


@pytest.mark.parametrize(
    "text", ["con", "NUL", "aux.txt", "com1", "lpt9.", "a:b", 'x<>"|?*y', "a/b\\c", "ends.", "ends "]
)
def test_name_is_one_that_windows_takes_too(text):
    name = slug(text)
    assert not set(name) & set('<>:"/\\|?*')
    assert not name.endswith((".", " "))
    assert name.split(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}


@pytest.mark.parametrize("text", ["seed=0,trainer.max_epochs=2", "optimizer.lr=1e-3", "console", "null=1", "größe"])
def test_name_of_a_job_stays_what_it_is(text):
    assert slug(text) == text


def test_command_is_quoted_for_the_shell_that_people_use(monkeypatch):
    words = ["python", "ckpt_path=it's, a folder"]
    assert shlex.split(shell_command(words)) == words
    monkeypatch.setattr(sys, "platform", "win32")
    assert shell_command(words) == 'python "ckpt_path=it\'s, a folder"'
