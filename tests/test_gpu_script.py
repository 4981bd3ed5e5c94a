"""scripts/proofs/gpu.py on a CPU: its parts stand for themselves, and its report is there whatever becomes of them."""

import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable
from types import ModuleType

import pytest
from documents import ROOT

SCRIPT = ROOT / "scripts" / "proofs" / "gpu.py"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the script is for Linux")


@pytest.fixture
def gpu(monkeypatch) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("gpu_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def place(gpu, tmp_path):
    return gpu.Place(tmp_path, True, time.monotonic() + 60)


def test_small_parts_are_measured_and_reported(tmp_path):
    words = ("--small", "--minutes", "2", "--output", tmp_path, "--parts", "machine", "bare", "by hand")
    subprocess.run([sys.executable, SCRIPT, *words], check=True, capture_output=True, cwd=tmp_path)
    outcomes = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
    assert [(outcome["part"], outcome["status"]) for outcome in outcomes] == [
        ("machine", "passed"),
        ("epochs: bare loop", "passed"),
        ("epochs: CUDA graph by hand", "skipped"),
    ]
    assert outcomes[1]["figures"]["64"]["median"] > 0
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| bare loop | " in text
    assert f"torch: {outcomes[0]['figures']['torch']}" in text


def test_part_that_fails_is_reported_with_its_error_and_what_it_had(gpu, place):
    def broken(place) -> dict:
        printed = f'{gpu.ANSWER}{{"batch_size": 64, "median": 0.5}}\n'
        try:
            place.python("-c", f"print({printed!r}); raise MemoryError('of the card')")
        except gpu.PartFailedError as error:
            error.figures = gpu.answers(error.printed)
            raise
        return {}

    outcome = gpu.show(gpu.Part("epochs: ours", 1, broken), place)
    assert outcome.status == "failed"
    assert "MemoryError: of the card" in outcome.error
    assert outcome.figures == {"64": {"median": 0.5}}
    assert "Traceback" in outcome.printed
    text = gpu.report([outcome])
    assert "| ours | 0.5 |" in text
    assert "MemoryError: of the card" in text


def test_part_that_hangs_is_ended_with_all_that_it_has_started(gpu, place, tmp_path):
    sleeper = "import time; time.sleep(60)"
    child = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {sleeper!r}]).pid, flush=True)"
    part = gpu.Part("sweep", 1, lambda place: place.python("-c", f"{child}; {sleeper}"))
    outcome = gpu.show(part, place)
    assert outcome.error.startswith("PartFailedError: not over in time")
    assert 3 <= outcome.seconds < 30
    grandchild = int(outcome.error.splitlines()[-1])
    wait_until(lambda: not is_running(grandchild))


def is_running(pid: int) -> bool:
    """Whether a process is there, and is not a zombie whom nobody waits for."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_part_that_no_longer_fits_is_skipped_and_says_so(gpu, tmp_path):
    place = gpu.Place(tmp_path, True, time.monotonic() + 20)
    outcome = gpu.show(gpu.Part("resume", 40, pytest.fail), place)
    assert outcome.status == "skipped"
    assert outcome.error in ("takes about 40 s, and 20 are left", "takes about 40 s, and 19 are left")


def test_report_compares_with_the_graph_by_hand_the_template_and_one_job_after_another(gpu, tmp_path):
    seconds = {gpu.BY_HAND: 0.1, gpu.OURS_GRAPHED: 0.11, gpu.TEMPLATE: 2.2}
    outcomes = [gpu.Outcome(f"epochs: {loop}", "passed", 9, {"64": {"median": s}}) for loop, s in seconds.items()]
    for way, wall in ((gpu.STACKED, 50.0), (gpu.GRAPHED, 10.0), (gpu.ALONE, 250.0)):
        outcomes.append(gpu.Outcome(f"sweep: 16, {way}", "passed", wall, {"wall seconds": wall}))
    gpu.write_report(outcomes, tmp_path)
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert f"| {gpu.OURS_GRAPHED} / {gpu.BY_HAND} | 1.1 |" in text
    assert f"| {gpu.OURS_GRAPHED} / {gpu.TEMPLATE} | 0.05 |" in text
    assert "| 16 | 50 | 10 | 250 | 5 | 25 |" in text
    assert len(json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))) == 6


def test_every_part_has_a_name_of_its_own(gpu):
    for small in (True, False):
        names = [part.name for part in gpu.parts(small)]
        assert len(set(names)) == len(names) == 21
