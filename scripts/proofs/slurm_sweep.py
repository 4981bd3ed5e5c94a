"""A four-job sweep on a real Slurm of one node, set up in a temporary folder; Debian: apt install slurm-wlm munge.

    python scripts/proofs/slurm_sweep.py [--keep]

Runs the sweep through the queue, stops and continues another, and compares both tables with that of Hydra's basic
launcher. Needs no rights but those to start munged, slurmctld and slurmd; stops them at the end.
"""

import argparse
import contextlib
import csv
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SLURM_CONF = """\
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=all Nodes=ALL Default=YES State=UP
"""
SWEEP = (
    *("-m", "data=synthetic", "data.train_size=6400", "data.test_size=1000", "model.hidden_sizes=[64]"),
    *("trainer.accelerator=cpu", "num_threads=1", "~callbacks.progress_bar", "optimizer.lr=1e-2,1e-1", "seed=0,1"),
)
TIMES = ("seconds",)


@contextlib.contextmanager
def one_node_slurm(folder: Path) -> Iterator[None]:
    """Munge and Slurm's two daemons, with all they write in ``folder``; $SLURM_CONF leads to them."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o400)
    host = socket.gethostname().split(".")[0]
    conf = SLURM_CONF.format(
        folder=folder, host=host, user=getpass.getuser(), ports=free_ports(2), cpus=os.cpu_count() or 1
    )
    (folder / "slurm.conf").write_text(conf)
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["PATH"] += os.pathsep + "/usr/sbin"
    munged = [
        f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("key-file", "socket", "log-file", "pid-file")
    ]
    daemons = []
    try:
        for command in (
            ["munged", "--foreground", "--force", f"--seed-file={folder}/munge.seed", *munged],
            ["slurmctld", "-D"],
            ["slurmd", "-D", "-N", host],
        ):
            with open(folder / f"{command[0]}.out", "w") as output:
                daemons.append(subprocess.Popen(command, stdout=output, stderr=output))
            time.sleep(1)
        until(lambda: "idle" in output_of("sinfo", "--noheader", "--format=%t"), 60, "Slurm's node is not idle")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


def output_of(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def until(true: Callable[[], bool], seconds: float, complaint: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise SystemExit(complaint)
        time.sleep(0.5)


def start(*arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "fmnist_lit", *SWEEP, *arguments]
    print("$", *command[1:], flush=True)
    return subprocess.Popen(command)


def table(sweep_dir: Path) -> list[dict[str, str]]:
    """Its summary without what takes other times."""
    with open(sweep_dir / "summary.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]


def statuses(sweep_dir: Path) -> dict[str, str]:
    return {row["folder"]: row["status"] for row in table(sweep_dir)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="keep the temporary folder")
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="slurm_sweep_"))
    slurm = "hydra/launcher=submitit_slurm"
    short = "trainer.max_epochs=3"
    with one_node_slurm(folder):
        print(output_of("sinfo"))
        if code := start(short, f"hydra.sweep.dir={folder}/basic").wait():
            raise SystemExit(f"basic launcher: exit code {code}")

        sweep = start(short, slurm, f"hydra.sweep.dir={folder}/queued")
        until(lambda: "RUNNING" in output_of("squeue", "--format=%T"), 120, "nothing runs in the queue")
        print(output_of("squeue"))
        code = sweep.wait()
        same = table(folder / "queued") == table(folder / "basic")
        print(f"through the queue: exit code {code}, table the same as with the basic launcher: {same}")

        long, stopped = "trainer.max_epochs=60", folder / "stopped"
        sweep = start(long, slurm, "hydra.launcher.array_parallelism=2", f"hydra.sweep.dir={stopped}")
        until(lambda: len(list(stopped.glob("*/checkpoints/last.ckpt"))) == 2, 300, "no two jobs have trained")
        sweep.send_signal(signal.SIGTERM)
        stop_code = sweep.wait()
        print(f"stopped: exit code {stop_code}, {statuses(stopped)}")
        until(lambda: not output_of("squeue", "--noheader"), 60, "the queue is not empty")
        stop_code += start(long, slurm, f"hydra.sweep.dir={stopped}").wait()
        start(long, f"hydra.sweep.dir={folder}/whole").wait()
        continued = table(stopped) == table(folder / "whole")
        print(f"continued: {statuses(stopped)}, table the same as of one that was never stopped: {continued}")
    if not args.keep:
        shutil.rmtree(folder)
    raise SystemExit(0 if (code, stop_code) == (0, 143) and same and continued else 1)


if __name__ == "__main__":
    main()
