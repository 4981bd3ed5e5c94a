import hydra
import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config.rules import RULES
from fmnist_lit.model import ACTIVATIONS, MLP

IMAGES = torch.rand(7, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def kinds(model: nn.Module) -> list[type]:
    return [type(layer) for layer in model]


def tutorial_network() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def test_default_is_the_tutorials_network_layer_by_layer():
    assert kinds(MLP()) == kinds(tutorial_network())
    assert sum(p.numel() for p in MLP().parameters()) == 669_706


def test_shipped_model_has_669_706_parameters(configure):
    model = instantiate(configure("model.hidden_sizes=[512,512]").model)
    assert sum(p.numel() for p in model.parameters()) == 669_706


def test_initial_weights_are_the_bits_of_the_plain_network():
    torch.manual_seed(3)
    ours = MLP().state_dict()
    torch.manual_seed(3)
    plain = tutorial_network().state_dict()
    assert list(ours) == list(plain)
    assert all(torch.equal(ours[name], plain[name]) for name in plain)


def test_forward_is_the_bits_of_the_plain_network():
    torch.manual_seed(3)
    ours = MLP()
    plain = tutorial_network()
    plain.load_state_dict(ours.state_dict())
    assert torch.equal(ours(IMAGES), plain(IMAGES))


def test_linear_is_softmax_regression():
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        model = instantiate(hydra.compose("config", ["model=linear"]).model)
    assert kinds(model) == [nn.Flatten, nn.Linear]
    assert sum(p.numel() for p in model.parameters()) == 7_850


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_follows_each_hidden_layer(name):
    model = MLP([20, 30], activation=name)
    assert kinds(model) == [nn.Flatten, nn.Linear, ACTIVATIONS[name], nn.Linear, ACTIVATIONS[name], nn.Linear]
    assert model(IMAGES).shape == (7, 10)


def test_hidden_sizes_set_the_widths():
    assert [layer.weight.shape for layer in MLP([20, 30]) if isinstance(layer, nn.Linear)] == [
        (20, 784),
        (30, 20),
        (10, 30),
    ]


def test_dropout_follows_each_activation_and_acts_in_training_only():
    model = MLP([20, 20], dropout=0.5)
    assert kinds(model) == [nn.Flatten, *[nn.Linear, nn.ReLU, nn.Dropout] * 2, nn.Linear]
    assert not torch.equal(model(IMAGES), model(IMAGES))
    model.eval()
    assert torch.equal(model(IMAGES), model(IMAGES))


def test_batch_norm_precedes_each_activation():
    model = MLP([20, 30], batch_norm=True)
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds(model) == [nn.Flatten, *block, *block, nn.Linear]


def test_every_activation_is_one_that_the_configuration_allows():
    assert [name for name in ACTIVATIONS if not RULES["model.activation"].check(name)] == []
