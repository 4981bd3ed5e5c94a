"""The pages of the reference, which mkdocstrings makes from the docstrings."""

from pathlib import PurePosixPath

from languages import said

TITLE = ("Python", "Python")
# Each page with its title, and what it shows
CONTENTS = {
    "index": (
        ("Functions", "函数"),
        [f"fmnist_lit.{name}" for name in ("train", "sweep", "load_run", "load_sweep", "load_classifier")],
    ),
    "runs": (
        ("Runs and sweeps", "训练与批量实验"),
        [
            *("fmnist_lit.api.run.Run", "fmnist_lit.api.sweep.Sweep", "fmnist_lit.api.run.RunFailedError"),
            *("fmnist_lit.config.ConfigError", "fmnist_lit.run.find.NoSuchRunError"),
            "fmnist_lit.run.checkpoint.CheckpointError",
        ],
    ),
    "trained": (("What was trained", "训练好的分类器"), ["fmnist_lit.trained.classifier"]),
    "training": (
        ("Classifier and data", "分类器与数据"),
        ["fmnist_lit.classifier", "fmnist_lit.data.datamodule.FashionMNISTDataModule"],
    ),
    "parts": (
        ("Parts", "各个部件"),
        [f"fmnist_lit.{name}" for name in ("model", "losses", "optimizers", "schedulers", "averaging", "metrics")],
    ),
}


def pages(language: str) -> dict[str, str]:
    """The Markdown of each page by its place on the site."""
    return {
        f"reference/{name}.md": "\n\n".join([f"# {said(title, language)}", *(f"::: {shown}" for shown in contents), ""])
        for name, (title, contents) in CONTENTS.items()
    }


def place(path: str) -> str | None:
    """Where a source file is on the site, if its docstrings are."""
    module = ".".join(PurePosixPath(path.removesuffix(".py")).parts[1:])
    for name, (_, contents) in CONTENTS.items():
        if path.startswith("src/") and module in contents:
            return f"reference/{name}.md#{module}"
    return None
