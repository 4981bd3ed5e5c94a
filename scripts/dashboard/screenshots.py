"""The pictures of docs/tensorboard.md: real runs, looked at in a real browser without a window.

    uv run --with selenium python scripts/dashboard/screenshots.py

It trains what is missing in outputs/dashboard (about ten minutes of one core), serves each folder of it on 127.0.0.1,
and writes docs/images/tensorboard/*.png. It needs the real data, Chromium and its chromedriver. --only NAME… makes some
of the pictures, --runs only trains.
"""

import argparse
import io
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[2]
RUNS = ROOT / "outputs" / "dashboard"
PICTURES = ROOT / "docs" / "images" / "tensorboard"
SIZE = 1360, 900

DASHBOARD = "callbacks=[default,dashboard]"
SMALL = ("data.train_size=20000", "trainer.max_epochs=5", DASHBOARD, "~callbacks.projector")
# By folder of what is looked at together, the command line of each run in it
COMMANDS: dict[str, dict[str, list[str]]] = {
    "one": {"sgd": [DASHBOARD, "optimizer.lr=0.1", "data.augmentation.flip=true"]},
    "rates": {f"lr={lr}": [*SMALL, f"optimizer.lr={lr}"] for lr in ("0.001", "0.1", "1")},
    "overfitting": {
        name: ["optimizer=adam", "data.train_size=2000", "trainer.max_epochs=40", *more]
        for name, more in {"plain": [], "dropout": ["model.dropout=0.5"]}.items()
    },
    "losses": {f"loss={loss}": [*SMALL, f"loss={loss}", "optimizer.lr=0.1"] for loss in ("cross_entropy", "mse")},
    "sweep": {
        "": [
            *("-m", "optimizer=sgd_momentum,adam", "optimizer.lr=1e-4,1e-3,1e-2,1e-1"),
            *("data.train_size=10000", "trainer.max_epochs=3"),
        ]
    },
}


def train() -> None:
    """Run what has not been run to its end."""
    for group, commands in COMMANDS.items():
        for name, words in commands.items():
            folder = RUNS / group / name
            where = f"hydra.sweep.dir={folder}" if "-m" in words else f"hydra.run.dir='{folder}'"
            ended = folder / ("summary.csv" if "-m" in words else "results.json")
            if not ended.exists():
                subprocess.run([sys.executable, "-m", "fmnist_lit", *words, "num_threads=1", where], check=True)


class Shot(NamedTuple):
    """A picture: its name, the folder it is of, the end of its address, what is done in the page, and its height."""

    name: str
    group: str
    address: str
    act: Callable[[Any], None] = lambda browser: None
    height: int = SIZE[1]


def deep(browser: Any, what: str) -> None:
    """Call the JavaScript function ``what`` with each element of the page, those within components too."""
    browser.execute_script(
        "const walk = (root) => root.querySelectorAll('*').forEach((element) => {"
        f" ({what})(element); if (element.shadowRoot) walk(element.shadowRoot); }}); walk(document);"
    )


def click(browser: Any, text: str, kind: str) -> None:
    """Click the first element of ``kind`` whose text it is."""
    browser.execute_script("window.clicked = false")
    deep(
        browser,
        f"(e) => {{ if (!window.clicked && e.matches({kind!r}) && e.textContent.trim() === {text!r})"
        " { window.clicked = true; e.click(); } }",
    )
    time.sleep(2)


def without_settings(browser: Any) -> None:
    """Make room for the charts."""
    click(browser, "Settings", "button")


def actual_size(browser: Any) -> None:
    """Show pictures as large as they are."""
    deep(
        browser,
        "(e) => { if (e.matches('paper-checkbox') && e.textContent.includes('actual image size')) e.click(); }",
    )
    time.sleep(3)


def unfold_graph(browser: Any) -> None:
    """Open the model in the graph, and leave out the legend."""
    deep(
        browser,
        "(e) => { if (e.matches('g.node') && e.getAttribute('data-name') === 'MLP')"
        " e.querySelector('.nodeshape, rect').dispatchEvent(new MouseEvent('dblclick', {bubbles: true})); }",
    )
    time.sleep(5)
    click(browser, "Fit to screen", "span, paper-button, button, td, div")


def parallel_coordinates(browser: Any) -> None:
    """From the table to the parallel coordinates."""
    click(browser, "PARALLEL COORDINATES VIEW", "*")


SHOTS = [
    Shot("overview", "one", "#custom_scalars"),
    Shot("text", "one", "#text"),
    Shot("graph", "one", "#graphs", unfold_graph),
    Shot("confusion", "one", "#images&tagFilter=confusion|mistakes", actual_size, 1300),
    Shot("weights", "one", "#images&tagFilter=first_layer", actual_size),
    Shot("histograms", "one", "#histograms&tagFilter=activations|gradients"),
    Shot("inside", "one", "?smoothing=0&tagFilter=gradient_norm|update_ratio|dead#timeseries", without_settings, 1250),
    Shot("precision_recall", "one", "#pr_curves"),
    Shot("projector", "one", "#projector"),
    Shot("hparams", "sweep", "#hparams", parallel_coordinates),
    Shot("rates", "rates", "?smoothing=0&tagFilter=accuracy/val|loss/running#timeseries", without_settings),
    Shot("dying", "rates", "?smoothing=0&tagFilter=dead_units|update_ratio#timeseries", without_settings, 1250),
    Shot("overfitting", "overfitting", "?smoothing=0&tagFilter=loss/(train|val)#timeseries", without_settings),
    Shot("losses", "losses", "?smoothing=0&tagFilter=(accuracy|loss)/val#timeseries", without_settings),
]


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """Serve a folder on this machine only; its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", folder.name, "--host", "127.0.0.1"]
    options = ["--port", str(port), "--samples_per_plugin", "images=100"]
    # from its parent: what is shown of the folder is its name
    server = subprocess.Popen(
        [*command, *options], cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(240):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.terminate()
        server.wait()


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--enable-unsafe-swiftshader"):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    browser = webdriver.Chrome(options, service)
    try:
        yield browser
    finally:
        browser.quit()


def take(browser: Any, address: str, shot: Shot) -> None:
    """Take a picture, in few colours."""
    browser.set_window_size(SIZE[0], shot.height)
    browser.get("about:blank")
    browser.get(address + shot.address)
    time.sleep(9)
    shot.act(browser)
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
    PICTURES.mkdir(parents=True, exist_ok=True)
    picture.quantize(128).save(PICTURES / f"{shot.name}.png", optimize=True)
    print(f"{shot.name}.png: {(PICTURES / f'{shot.name}.png').stat().st_size / 1000:.0f} kB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", action="store_true", help="only train")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these pictures")
    args = parser.parse_args()
    train()
    if args.runs:
        return
    shots = [shot for shot in SHOTS if not args.only or shot.name in args.only]
    with chromium() as browser:
        for group in dict.fromkeys(shot.group for shot in shots):
            with tensorboard(RUNS / group) as address:
                time.sleep(4)
                for shot in shots:
                    if shot.group == group:
                        take(browser, address, shot)


if __name__ == "__main__":
    main()
