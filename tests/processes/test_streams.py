import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from interruptions import TINY, results

from fmnist_lit.processes.streams import Outlet

SHOW = "from fmnist_lit.processes.streams import *; import sys\n"


def run(program: str, tmp_path: Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", SHOW + program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.run(command, cwd=tmp_path, **{**pipes, **options}, timeout=120, check=False)


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.mark.parametrize(
    "setting", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_terminal_that_lacks_a_character_shows_its_number(tmp_path, setting):
    environment = {**os.environ, "PYTHONCOERCECLOCALE": "0", **setting}
    ended = run(
        "guard_streams(); print('28', chr(0x2192), '28'); print(chr(0x2192), file=sys.stderr)",
        tmp_path,
        env=environment,
    )
    assert (ended.returncode, ended.stdout.split()) == (0, [b"28", b"\\u2192", b"28"])
    assert ended.stderr.split() == [b"\\u2192"]


def test_name_with_bytes_that_are_no_characters_is_shown(tmp_path):
    ended = run("guard_streams(); print('name-\\udcff')", tmp_path, env={**os.environ, "PYTHONUTF8": "1"})
    assert (ended.returncode, ended.stdout.strip()) == (0, rb"name-\udcff")


def test_who_prints_goes_on_when_the_reader_has_left(tmp_path):
    writer = closed_pipe()
    program = "guard_streams(); [print('x' * 9999) for _ in range(9)]; open('end', 'w').close(); print('last')"
    ended = run(program, tmp_path, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert (tmp_path / "end").exists()


@pytest.mark.parametrize(("main", "code"), [("lambda: print('x') or 0", 0), ("lambda: print('x') or 2", 2)])
def test_command_whose_reader_has_left_keeps_its_exit_code(tmp_path, main, code):
    writer = closed_pipe()
    ended = run(f"sys.exit(run_printing({main}))", tmp_path, stdout=writer)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (code, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_output_for_which_a_disk_has_no_room_is_an_error(tmp_path):
    with open("/dev/full", "w") as full:
        ended = run("sys.exit(run_printing(lambda: print('x') or 0))", tmp_path, stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.decode().split() == ["error:", "standard", "output:", *os.strerror(errno.ENOSPC).split()]


@pytest.mark.skipif(os.name == "nt", reason="no shell that closes it")
def test_closed_output_stays_closed_to_files_that_are_opened_later(tmp_path):
    """Else a file of the run would get number 1, and what a library prints."""
    program = (
        f"{SHOW}guard_streams(); file = open('mine', 'w'); print('x'); os.write(1, b'y'); sys.exit(file.fileno() < 3)"
    )
    shell = ["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, f"import os; {program}"]
    assert subprocess.run(shell, cwd=tmp_path, check=False, timeout=120).returncode == 0
    assert (tmp_path / "mine").read_bytes() == b""


def test_stream_that_somebody_put_in_place_is_left_alone(tmp_path):
    ended = run(
        "mine = sys.stdout = open(1, 'w', closefd=False); guard_streams(); sys.exit(sys.stdout is not mine)", tmp_path
    )
    assert ended.returncode == 0


def test_streams_are_guarded_once(tmp_path):
    program = "guard_streams(); first = sys.__stdout__ = sys.stdout; guard_streams(); sys.exit(sys.stdout is not first)"
    assert run(program, tmp_path).returncode == 0


def test_pipe_that_does_not_block_is_waited_for():
    class Busy(io.BytesIO):
        name, mode = "busy", "wb"
        refusals = 2

        def write(self, data):
            if self.refusals:
                self.refusals -= 1
                return None
            return super().write(data)

    busy = Busy()
    assert Outlet(busy).write(b"abc") == 3
    assert busy.getvalue() == b"abc"


def test_unbuffered_output_is_guarded_too(tmp_path):
    writer = closed_pipe()
    ended = run(
        "guard_streams(); print('x'); print('y')", tmp_path, stdout=writer, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (0, b"")


# As a user runs it


@pytest.mark.parametrize("streams", ["stdout", "both"])
def test_run_whose_reader_has_left_goes_on_to_its_end(tmp_path, streams):
    writer = closed_pipe()
    command = [sys.executable, "-m", "fmnist_lit", *TINY, "hydra.run.dir=größe"]
    stderr = writer if streams == "both" else subprocess.PIPE
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, stdout=writer, stderr=stderr, timeout=300, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr or b"") == (0, b"")
    assert results(tmp_path / "größe")["status"] == "completed"
    assert "größe" in (tmp_path / "größe" / "train.log").read_text(encoding="utf-8")


def test_predict_stops_when_its_reader_has_left(tmp_path, monkeypatch):
    from fmnist_lit import predict

    done = []

    def entries():
        for number in range(5):
            done.append(number)
            yield {"file": "a.png", "error": "x"}

    monkeypatch.setattr(predict, "find_trained", lambda run: None)
    monkeypatch.setattr("fmnist_lit.trained.load.load_trained", lambda run: None)
    monkeypatch.setattr(predict, "classify", lambda *_: entries())
    monkeypatch.setattr(predict, "reader_has_left", lambda: len(done) == 2)
    assert predict.main(["run", "a.png"]) == 141
    assert done == [0, 1]
