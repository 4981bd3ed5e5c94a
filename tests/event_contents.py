"""All that is in a run's events, whatever a restart declares void: a reader that knows no restarts sees it too."""

from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_accumulator import STORE_EVERYTHING_SIZE_GUIDANCE, EventAccumulator


def read_all(run_dir: Path) -> EventAccumulator:
    accumulator = EventAccumulator(str(run_dir), STORE_EVERYTHING_SIZE_GUIDANCE, purge_orphaned_data=False)
    return accumulator.Reload()


def contents(run_dir: Path) -> dict[str, list[tuple[int, Any]]]:
    """By tag, the step and what there is at it; but for the times."""
    events = read_all(run_dir)
    tags = events.Tags()
    return {
        **{tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"] if tag != "seconds"},
        **{tag: [(e.step, e.encoded_image_string) for e in events.Images(tag)] for tag in tags["images"]},
        **{tag: [(e.step, e.histogram_value) for e in events.Histograms(tag)] for tag in tags["histograms"]},
        **{tag: [(e.step, e.tensor_proto.SerializeToString()) for e in events.Tensors(tag)] for tag in tags["tensors"]},
    }


def steps(run_dir: Path, tag: str) -> list[int]:
    return [step for step, _ in contents(run_dir)[tag]]


def text(run_dir: Path, tag: str) -> str:
    """A text that is said once."""
    (event,) = read_all(run_dir).Tensors(f"{tag}/text_summary")
    return event.tensor_proto.string_val[0].decode()
