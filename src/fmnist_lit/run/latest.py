"""Which run ``latest`` means: the one that was last written to, where new runs go."""

from pathlib import Path

LATEST = "latest"
NEW_RUNS = Path("outputs", "runs")  # where they go unless hydra.run.dir says otherwise


def latest_run(folder: Path) -> Path | None:
    """The run folder in ``folder`` that was last written to, of those with a checkpoint; None if there is none."""
    written = [(max(times), run) for run in folder.glob("*/") if (times := times_written(run))]
    return max(written)[1] if written else None


def times_written(run_dir: Path) -> list[float]:
    """When a run last wrote its checkpoint and its results; nothing where it has left no checkpoint."""
    last = run_dir / "checkpoints" / "last.ckpt"
    try:
        return [file.stat().st_mtime for file in (last, run_dir / "results.json")]
    except OSError:
        return []
