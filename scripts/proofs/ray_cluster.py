"""A sweep on a Ray cluster of two nodes, of which one dies in the middle; Linux, with the extra ray.

    python scripts/proofs/ray_cluster.py

The two nodes are on this machine, in a network namespace of their own with the loopback only, and end with it. Eight
jobs run on both nodes; the table is that of Hydra's basic launcher. Then the same again, and the second node is killed:
its jobs are lost, and the same command goes on to the same table.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

SWEEP = (
    *("-m", "data=synthetic", "data.train_size=6400", "data.test_size=1000", "model.hidden_sizes=[64]"),
    *("trainer.max_epochs=4", "trainer.accelerator=cpu", "num_threads=1", "optimizer.lr=1e-2,1e-1", "seed=0,1,2,3"),
)
ADDRESS, NODES = "127.0.0.1:6399", ("127.0.0.1", "127.0.0.2")
INSIDE = "IN_A_NAMESPACE"


def processes() -> Iterator[tuple[int, int, str]]:
    """The number, the parent's number and the command line of all processes of this namespace."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            yield int(folder.name), int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1]), command
        except OSError:  # it has ended
            continue


def raylet_of(node: str) -> int:
    """The process that runs a node."""
    found = [pid for pid, _, line in processes() if "/raylet " in line and f"--node_ip_address={node} " in line]
    return found[0]


def nodes_at_work() -> set[str]:
    """The nodes on which a job runs now."""
    raylets = {raylet_of(node): node for node in NODES}
    return {raylets[parent] for _, parent, line in processes() if parent in raylets and "ray::" in line}


def sweep(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a sweep."""
    command = [sys.executable, "-m", "fmnist_lit", *SWEEP, *words, f"hydra.sweep.dir={folder}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def table(folder: Path) -> list[dict[str, str]]:
    """What the summary says, but for times."""
    with open(folder / "summary.csv", newline="", encoding="utf-8") as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def start_cluster() -> None:
    """Two nodes with a processor each."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ["RAY_AUTH_MODE"] = "disabled"  # nobody else can reach it; with tokens each node would need the head's
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1", "--object-store-memory=78643200"]
    head = [f"--port={ADDRESS.split(':')[1]}", "--head", f"--node-ip-address={NODES[0]}", "--include-dashboard=false"]
    for options in (head, [f"--address={ADDRESS}", f"--node-ip-address={NODES[1]}"]):
        subprocess.run([*ray, *options], check=True, stdout=subprocess.DEVNULL)


def prove(folder: Path) -> None:
    """The whole of it, within the namespace."""
    assert sweep(folder / "basic").wait() == 0
    start_cluster()
    os.environ["RAY_ADDRESS"] = ADDRESS
    running, seen = sweep(folder / "cluster", "hydra/launcher=ray"), set[str]()
    while running.poll() is None:
        seen |= nodes_at_work()
        time.sleep(0.2)
    assert running.returncode == 0
    assert seen == set(NODES), seen
    assert table(folder / "cluster") == table(folder / "basic")
    print("Eight jobs ran on both nodes; the table is that of the basic launcher.")

    running = sweep(folder / "killed", "hydra/launcher=ray")
    while len(list((folder / "killed").glob("*/metrics.csv"))) < 3:  # both nodes are at work
        time.sleep(0.2)
    raylet = raylet_of(NODES[1])
    lost = [pid for pid, parent, line in processes() if parent == raylet and "ray::" in line]
    for pid in (raylet, *lost):
        os.kill(pid, signal.SIGKILL)
    print(f"A node was killed with {len(lost)} of its jobs; the sweep ended with {running.wait()}.")
    print(f"Statuses: {sorted(row['status'] for row in table(folder / 'killed'))}")
    assert sweep(folder / "killed", "hydra/launcher=ray").wait() == 0
    assert table(folder / "killed") == table(folder / "basic")
    print("The same command went on to the same table.")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if INSIDE not in os.environ:
        words = ["unshare", "-n", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable, __file__]
        raise SystemExit(subprocess.run(words, env={**os.environ, INSIDE: "1"}, check=False).returncode)
    with tempfile.TemporaryDirectory() as folder:
        prove(Path(folder))


if __name__ == "__main__":
    main()
