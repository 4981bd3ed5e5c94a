import os
from pathlib import Path

import pytest

from fmnist_lit.run.latest import latest_run


def run(folder: Path, checkpoint: float | None, results: float | None) -> None:
    """A run folder whose files were written at these times."""
    (folder / "checkpoints").mkdir(parents=True)
    for name, written in (("checkpoints/last.ckpt", checkpoint), ("results.json", results)):
        if written is not None:
            (folder / name).touch()
            os.utime(folder / name, (written, written))


@pytest.mark.parametrize("folder", ["nowhere", "empty", "file"])
def test_there_may_be_none(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert latest_run(tmp_path / folder) is None


def test_the_last_to_write_its_checkpoint_or_its_results_is_the_latest(tmp_path):
    run(tmp_path / "2026-01-03", 100, 100)
    run(tmp_path / "2026-01-01", 300, 100)  # resumed since
    run(tmp_path / "2026-01-02", 100, 200)
    assert latest_run(tmp_path) == tmp_path / "2026-01-01"


def test_what_leaves_nothing_to_go_on_from_is_passed_over(tmp_path):
    run(tmp_path / "a", 100, 100)
    run(tmp_path / "without_a_checkpoint", None, 300)
    run(tmp_path / "no_run", 300, None)
    (tmp_path / "file").touch()
    assert latest_run(tmp_path) == tmp_path / "a"
