"""The tutorial's network: Flatten, then Linear layers with an activation between them."""

from collections.abc import Sequence

from torch import nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "leaky_relu": nn.LeakyReLU,
}


class MLP(nn.Sequential):
    """Images (N, 1, 28, 28) to logits (N, num_classes).

    The defaults are the tutorial's network, layer by layer; with the same seed, so are the initial weights, bit by bit.

    Args:
        hidden_sizes: widths of the hidden layers; empty gives softmax regression.
        activation: a key of ``ACTIVATIONS``.
        dropout: probability of zeroing a hidden unit during training, 0 <= dropout < 1.
        batch_norm: normalise each hidden layer over the batch before its activation.
    """

    def __init__(
        self,
        hidden_sizes: Sequence[int] = (512, 512),
        activation: str = "relu",
        dropout: float = 0.0,
        batch_norm: bool = False,
        in_features: int = 28 * 28,
        num_classes: int = 10,
    ) -> None:
        layers: list[nn.Module] = [nn.Flatten()]
        for size in hidden_sizes:
            layers.append(nn.Linear(in_features, size))
            if batch_norm:
                layers.append(nn.BatchNorm1d(size))
            layers.append(ACTIVATIONS[activation]())
            if dropout:
                layers.append(nn.Dropout(dropout))
            in_features = size
        layers.append(nn.Linear(in_features, num_classes))
        super().__init__(*layers)
