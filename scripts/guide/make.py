"""Make the pictures and the figures of docs/guide from real runs.

    FMNIST_DATA_DIR=… uv run python scripts/guide/make.py

Runs the studies that the guide shows, each into outputs/guide/STUDY, where what is done already is not done again;
then draws docs/guide/images/*.png and rewrites what stands between `<!-- measured: NAME -->` and `<!-- end -->` in the
texts of both languages. `--only NAME …` makes those pictures and figures alone, `--no-runs` takes the studies as they
are.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import batch_size_and_epochs
import find_lr
import introduction
import learning_rate_and_schedules
import losses
import matplotlib
import optimizers
import torch
from contents import FIGURES, TEXTS
from drawing import STYLE
from runs import ROOT, RUNS, NotRunError

# They fill FIGURES and TEXTS
CHAPTERS = (introduction, losses, optimizers, learning_rate_and_schedules, find_lr, batch_size_and_epochs)
GUIDE = ROOT / "docs" / "guide"
MEASURED = GUIDE / "measured.json"
MARKERS = re.compile(r"(<!-- measured: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)
STUDIES = (  # together about 40 minutes of one core
    *("seeds", "losses", "momentum", "sgd_lr", "weight_decay", "overfitting", "l1_penalty", "schedulers"),
    *("lr_batch_size", "optimizers"),
)


def run(name: str) -> None:
    """Run what is missing of a study; that a learning rate makes a job diverge is one of its findings."""
    folder = (RUNS / name).relative_to(ROOT)
    command = [sys.executable, "-m", "fmnist_lit", f"study={name}", f"hydra.sweep.dir={folder}"]
    print(" ".join(["python", *command[1:]]), flush=True)
    ended = subprocess.run(command, cwd=ROOT, check=False).returncode
    if ended not in (0, 1):
        sys.exit(ended)


def draw(name: str) -> None:
    """Draw a picture into docs/guide/images."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        file = GUIDE / "images" / f"{name}.png"
        file.parent.mkdir(exist_ok=True)
        FIGURES[name]().savefig(file, metadata={"Software": None})


def fill(page: str, texts: Mapping[str, str]) -> str:
    """A page with these of its measured texts renewed."""

    def renew(match: re.Match[str]) -> str:
        opening, name, old, closing = match.groups()
        if name not in texts:
            return match[0]
        new = texts[name]
        return opening + (f"\n\n{new}\n\n" if old.startswith("\n") else new) + closing

    return MARKERS.sub(renew, page)


def write(name: str) -> None:
    """Measure again what a text says, keep that beside the pages, and renew it in them, in the language of each."""
    kept = {**json.loads(MEASURED.read_text(encoding="utf-8")), name: TEXTS[name].measure()}
    content = json.dumps(dict(sorted(kept.items())), indent=1, ensure_ascii=False)
    MEASURED.write_text(content + "\n", encoding="utf-8")
    for page in GUIDE.glob("*.md"):
        page.write_text(fill(page.read_text(encoding="utf-8"), {name: words_of(name, page)}), encoding="utf-8")


def words_of(name: str, page: Path) -> str:
    """A text for a page, in its language, from what is kept of the measurements."""
    words = TEXTS[name].write(json.loads(MEASURED.read_text(encoding="utf-8"))[name])
    return words.chinese if page.name.endswith(".zh-CN.md") else words.english


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", choices=[*FIGURES, *TEXTS], metavar="NAME", help=", ".join([*FIGURES, *TEXTS])
    )
    parser.add_argument(
        "--no-runs", action="store_true", help="take the studies as they are; pictures say what is missing"
    )
    args = parser.parse_args()
    if not args.no_runs:
        for name in STUDIES:
            run(name)
        find_lr.run_all()
    wanted = args.only or [*FIGURES, *TEXTS]
    torch.set_num_threads(1)  # the same bits on every machine
    for name in wanted:
        try:
            draw(name) if name in FIGURES else write(name)
        except NotRunError as reason:
            print(f"{name}: left as it is, {reason}")


if __name__ == "__main__":
    main()
