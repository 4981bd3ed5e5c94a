import contextlib
import io
import logging

from fmnist_lit.command_line.console import ConsoleHandler


def test_lines_go_to_what_standard_output_is_at_the_time():
    """Rich's progress bar replaces sys.stdout while it is live; lines must then go through it."""
    handler = ConsoleHandler()
    first, second = io.StringIO(), io.StringIO()
    for number, screen in enumerate((first, second)):
        with contextlib.redirect_stdout(screen):
            handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
    assert (first.getvalue(), second.getvalue()) == ("line 0\n", "line 1\n")
