"""The tutorial's network: Flatten, then Linear layers with an activation between them. And a convolutional one."""

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


class CNN(nn.Sequential):
    """Images (N, 1, 28, 28) to logits (N, num_classes): convolutions with ReLU and pooling, then two Linear layers.

    Args:
        channels: of each 3 × 3 convolution; at most four, because each halves height and width.
        hidden_size: width of the layer before the last.
        dropout: probability of zeroing a hidden unit of that layer during training, 0 <= dropout < 1.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 32), hidden_size: int = 128, dropout: float = 0.0, num_classes: int = 10
    ) -> None:
        layers: list[nn.Module] = []
        in_channels, side = 1, 28
        for size in channels:
            layers += [nn.Conv2d(in_channels, size, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            in_channels, side = size, side // 2
        layers += [nn.Flatten(), nn.Linear(in_channels * side**2, hidden_size), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(hidden_size, num_classes))
        super().__init__(*layers)
