"""What Weights & Biases keeps in a run folder, read without its server."""

import json
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS_TO_WRITE = 20


@dataclass
class Kept:
    """What W&B has in a file: its run, and what it was told."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    axes: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    exit_code: int | None = None

    def points(self, tag: str) -> list[tuple[int, float]]:
        return [(row["epoch"], row[tag]) for row in self.history if tag in row]


def records(file: Path) -> list[Any]:
    """The records in a .wandb file, which is a log as LevelDB has them, after seven bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole, found = file.read_bytes(), 7, b"", []
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        if at + 7 + length > len(content):  # is being written
            break
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(whole))
            whole = b""
    return found


def kept(run_dir: Path) -> list[Kept]:
    """The pieces of a run in its folder, in the order in which they began; W&B may still be writing the last."""
    deadline = time.monotonic() + SECONDS_TO_WRITE
    while True:
        files = sorted(run_dir.glob("wandb/offline-run-*/*.wandb"), key=lambda file: file.parent.name)
        pieces = [piece(file) for file in files]
        if all(one.exit_code is not None for one in pieces) or time.monotonic() > deadline:
            return pieces
        time.sleep(0.05)


def piece(file: Path) -> Kept:
    """What a file says."""
    kept = Kept()
    for record in records(file):
        match record.WhichOneof("record_type"):
            case "run":
                kept.run = record.run
            case "config":
                kept.config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            case "summary":
                kept.summary |= {item.key: json.loads(item.value_json) for item in record.summary.update if item.key}
            case "history":
                kept.history.append({item.nested_key[0]: json.loads(item.value_json) for item in record.history.item})
            case "metric":
                kept.axes[record.metric.name] = record.metric.step_metric
            case "files":
                kept.files |= {file.path for file in record.files.files}
            case "exit":
                kept.exit_code = record.exit.exit_code
    return kept
