"""Prove that experiment=tutorial ends in the very bits of a plain PyTorch loop, at the same thread count.

    FMNIST_DATA_DIR=… uv run python scripts/proofs/same_bits.py --epochs 10 --threads 1

The plain loop below is the tutorial's: ToTensor per image, a DataLoader, nn.Sequential, SGD. It shares no code with
the package. Exits with 1 if a single bit differs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import FashionMNIST
from torchvision.transforms import ToTensor


def plain_loop(data_dir: str, epochs: int, seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )
    train = DataLoader(FashionMNIST(data_dir, train=True, transform=ToTensor(), download=True), batch_size=64)
    test = DataLoader(FashionMNIST(data_dir, train=False, transform=ToTensor(), download=True), batch_size=64)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for epoch in range(epochs):
        model.train()
        for images, labels in train:
            loss = loss_fn(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            results = [(model(images), labels) for images, labels in test]
        correct = sum((logits.argmax(1) == labels).sum().item() for logits, labels in results)
        loss = sum(loss_fn(logits, labels).item() for logits, labels in results) / len(results)
        print(f"plain loop, epoch {epoch + 1}: test {100 * correct / 10_000:.2f} %, loss {loss:.4f}", flush=True)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", default=os.environ.get("FMNIST_DATA_DIR", "data"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as run_dir:
        command = [sys.executable, "-m", "fmnist_lit", "experiment=tutorial", "data=fashion_mnist"]
        command += [f"data.data_dir='{args.data_dir}'", f"seed={args.seed}", f"num_threads={args.threads}"]
        command += ["trainer.accelerator=cpu", f"trainer.max_epochs={args.epochs}", f"hydra.run.dir='{run_dir}'"]
        subprocess.run(command, check=True)
        trained = torch.load(Path(run_dir) / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    plain = {
        f"model.{name}": weight
        for name, weight in plain_loop(args.data_dir, args.epochs, args.seed).state_dict().items()
    }
    different = [name for name in plain if not torch.equal(plain[name], trained[name])]
    if different or plain.keys() != trained.keys():
        sys.exit(f"different: {different or plain.keys() ^ trained.keys()}")
    print(f"all {sum(weight.numel() for weight in plain.values())} weights are the same bits")


if __name__ == "__main__":
    main()
