"""A data-parallel run on two nodes, which are two torchruns on this machine, ends in the bits of two processes on one.

    python scripts/proofs/two_nodes.py

Each torchrun starts one process. They meet on the loopback and end with the run.
"""

import argparse
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUN = (
    *("-m", "fmnist_lit", "trainer=ddp", "trainer.accelerator=cpu", "num_threads=1", "trainer.max_epochs=2"),
    *("data=synthetic", "data.train_size=2000", "data.val_size=500", "data.test_size=500", "model.dropout=0.2"),
)
TIMES = ("started", "seconds", "fit_cpu_seconds", "provenance")


def torchrun(node: int, port: int) -> list[str]:
    """The command that starts the process of one node."""
    meeting = ["--nnodes=2", f"--node-rank={node}", "--master-addr=127.0.0.1", f"--master-port={port}"]
    return [sys.executable, "-m", "torch.distributed.run", *meeting, "--nproc-per-node=1"]


def outcome(run_dir: Path) -> dict[str, Any]:
    """The figures and the digest of the weights."""
    results = json.loads((run_dir / "results.json").read_text(encoding="utf-8"))
    return {key: value for key, value in results.items() if key not in TIMES}


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [*RUN, "trainer.devices=1", "+trainer.num_nodes=2", f"hydra.run.dir={folder / 'nodes'}"]
        nodes = [subprocess.Popen([*torchrun(node, port), *words], cwd=folder) for node in (0, 1)]
        assert [node.wait() for node in nodes] == [0, 0]
        subprocess.run([sys.executable, *RUN, f"hydra.run.dir={folder / 'one'}"], cwd=folder, check=True)
        assert outcome(folder / "nodes") == outcome(folder / "one")
        print(f"The same figures and weights: {outcome(folder / 'nodes')['weights_sha256']}")


if __name__ == "__main__":
    main()
