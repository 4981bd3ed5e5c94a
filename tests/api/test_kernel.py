"""In a real kernel of Jupyter's: what a notebook shows, and its stop button."""

import re
from pathlib import Path

import pytest
from conftest import SMALL
from interruptions import PATIENCE, outcome

manager = pytest.importorskip("jupyter_client.manager")

RUN = [*SMALL, "model.dropout=0.2"]
IMPORT = f"import fmnist_lit\nRUN = {RUN}"


class Kernel:
    """A notebook without a page."""

    def __init__(self, folder: Path) -> None:
        self.manager, self.client = manager.start_new_kernel(cwd=str(folder))

    def run(self, code: str, stop_at: str = "") -> list[dict]:
        """What a cell shows; once that has ``stop_at`` in it, the stop button is pressed."""
        request = self.client.execute(code)
        shown: list[dict] = []
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "status" and content["execution_state"] == "idle":
                return shown
            shown.append({"kind": kind, **content})
            if stop_at and stop_at in content.get("text", ""):
                self.manager.interrupt_kernel()
                stop_at = ""


def texts(shown: list[dict]) -> str:
    return "".join(each["text"] for each in shown if each["kind"] == "stream")


def error(shown: list[dict]) -> tuple[str, str] | None:
    return next(((each["ename"], each["evalue"]) for each in shown if each["kind"] == "error"), None)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    kernel = Kernel(folder)
    kernel.folder = folder
    assert error(kernel.run(IMPORT)) is None
    yield kernel
    kernel.client.stop_channels()
    kernel.manager.shutdown_kernel(now=True)


def test_cell_shows_lines_a_bar_and_the_run(kernel):
    shown = kernel.run("fmnist_lit.train(*RUN, 'hydra.run.dir=shown')")
    assert error(shown) is None
    assert len(re.findall(r"^epoch \d/2 ", texts(shown), re.M)) == 2
    bars = [each["data"]["text/html"] for each in shown if each["kind"] in ("display_data", "update_display_data")]
    assert re.fullmatch(r"<progress value=.*></progress> epoch 1/2, 4 of 4 batches, loss \d\.\d{3}", bars[0])
    assert bars[-1] == ""
    (result,) = [each["data"] for each in shown if each["kind"] == "execute_result"]
    assert result["text/plain"].startswith("<Run: test accuracy ")
    assert '<img src="data:image/png' in result["text/html"]
    (picture,) = kernel.run("run = fmnist_lit.load_run('shown'); run.plot()")[-1:]
    assert "image/png" in picture["data"]


def test_stop_button_stops_the_cell_and_the_run_goes_on_to_the_same_bits(kernel):
    assert error(kernel.run("whole = fmnist_lit.train(*RUN, 'trainer.max_epochs=80', 'hydra.run.dir=whole')")) is None
    shown = kernel.run("fmnist_lit.train(*RUN, 'trainer.max_epochs=80', 'hydra.run.dir=part')", stop_at="epoch  3/")
    assert error(shown) == ("KeyboardInterrupt", "by SIGINT; fmnist_lit.load_run('part').resume() goes on")
    shown = kernel.run("run = fmnist_lit.load_run('part'); print(run.status); run = run.resume(); print(run.status)")
    assert error(shown) is None
    assert texts(shown).startswith("interrupted\n")
    assert texts(shown).endswith("completed\n")
    assert outcome(kernel.folder / "part") == outcome(kernel.folder / "whole")


def test_error_of_a_cell_is_the_sentence_and_the_next_cell_runs(kernel):
    assert error(kernel.run("fmnist_lit.train('optimizer.lr=nan')")) == (
        "ConfigError",
        "optimizer.lr=nan: must be a finite number > 0",
    )
    in_a_thread = (
        "import threading\nthread = threading.Thread(target=lambda: fmnist_lit.train(*RUN, 'hydra.run.dir=thread'))\n"
        "thread.start(); thread.join(); fmnist_lit.load_run('thread').status"
    )
    shown = kernel.run(in_a_thread)
    assert shown[-1]["data"]["text/plain"] == "'completed'"
    shown = kernel.run("import asyncio; asyncio.get_running_loop(); fmnist_lit.train(*RUN).status")
    assert shown[-1]["data"]["text/plain"] == "'completed'"
