import sys

import pytest

from fmnist_lit.progress import ProgressBar


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_is_shown_in_a_terminal_only(monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert ProgressBar().is_enabled is terminal
