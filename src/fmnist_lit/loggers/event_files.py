"""TensorBoard's event files of a run folder, rewritten when the run goes on, so that nothing in them is there twice.

TensorBoard's own way, an event that declares what follows a step void, knows one scale of steps only; here figures are
by epoch and by optimiser step.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from fmnist_lit.run.files import write_durably

if TYPE_CHECKING:
    from fmnist_lit.loggers.protocol import Event


def event_files(folder: Path) -> list[Path]:
    """The event files of a folder, in the order in which TensorBoard reads them."""
    return sorted(folder.glob("events.out.tfevents.*"))


def number_of(file: Path) -> int:
    """The number by which TensorBoard sorts an event file, the second in which it was opened; -1 if it has none."""
    number = file.name.split(".")[3]
    return int(number) if number.isdecimal() else -1


def rewrite_events(folder: Path, is_valid: Callable[[Any, int], bool]) -> None:
    """Replace the event files of a folder by one, with what of them ``is_valid`` accepts.

    A kill leaves the files, or the new one beside them, which declares all before it void.

    Args:
        folder: in which no event file is open.
        is_valid: takes a summary's value, as in TensorBoard's protocol, and its step.
    """
    from tensorboard.summary.writer.record_writer import RecordWriter

    from fmnist_lit.loggers.protocol import Event, SessionLog

    files = event_files(folder)
    if not files:
        return
    restart = Event(step=0, session_log=SessionLog(status=SessionLog.START))
    # a TensorBoard that is open takes the first restart that it sees for the start
    kept = [Event(file_version="brain.Event:2"), restart, restart]
    for event in valid_events(files):
        values = [value for value in event.summary.value if is_valid(value, event.step)]
        if values:
            del event.summary.value[:]
            event.summary.value.extend(values)
            kept.append(event)

    def write(file: BinaryIO) -> None:
        writer = RecordWriter(file)
        for event in kept:
            writer.write(event.SerializeToString())

    number = max(map(number_of, files)) + 1
    write_durably(folder / f"events.out.tfevents.{number:010d}.{socket.gethostname()}.{os.getpid()}.resumed", write)
    for file in files:
        with contextlib.suppress(OSError):  # Windows deletes nothing that TensorBoard has open
            file.unlink()


def valid_events(files: list[Path]) -> list["Event"]:
    """The summaries in event files, without those that a later restart declares void."""
    from fmnist_lit.loggers.protocol import SessionLog

    events: list[Event] = []
    for event in read_events(files):
        if event.session_log.status == SessionLog.START:
            events = [earlier for earlier in events if earlier.step < event.step]
        elif event.HasField("summary"):
            events.append(event)
    return events


def read_events(files: list[Path]) -> Iterator["Event"]:
    """All events of files, up to where a file is damaged or ends in the middle of one."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    for file in files:
        yield from LegacyEventFileLoader(str(file)).Load()
