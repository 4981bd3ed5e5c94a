import pytest
import torch
from hydra.utils import instantiate
from torch import nn

from fmnist_lit.model import MLP
from fmnist_lit.optimizers import MuonWithAdamW


@pytest.fixture
def shipped(configure):
    """The optimiser of a command line, on a model."""
    return lambda model, *overrides: instantiate(configure(*overrides).optimizer, _convert_="all")(
        model.named_parameters()
    )


def small_model(seed: int = 0) -> MLP:
    torch.manual_seed(seed)
    return MLP([6, 5], in_features=8, num_classes=3)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        model(torch.randn(16, 8, generator=generator)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def bits(model: nn.Module) -> list[list[float]]:
    return [p.flatten().tolist() for p in model.parameters()]


def test_sgd_follows_torchs_documented_update_for_three_steps(shipped):
    lr, mu, decay = 0.1, 0.9, 0.01
    model = nn.Module()
    model.p = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    options = (f"optimizer.lr={lr}", f"optimizer.momentum={mu}", f"optimizer.weight_decay={decay}")
    optimizer = shipped(model, "optimizer=sgd", *options)
    p, v = [1.0, -2.0], [0.0, 0.0]
    for _ in range(3):
        optimizer.zero_grad()
        (model.p**3).sum().backward()
        optimizer.step()
        for i in range(2):
            v[i] = mu * v[i] + 3 * p[i] ** 2 + decay * p[i]
            p[i] -= lr * v[i]
        assert model.p.tolist() == pytest.approx(p, rel=1e-12)


def test_sgd_nesterov_looks_ahead_by_the_momentum(shipped):
    model = nn.Module()
    model.p = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
    optimizer = shipped(model, "optimizer=sgd_nesterov", "optimizer.lr=0.1")
    p, v = 2.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        (model.p**2).sum().backward()
        optimizer.step()
        gradient = 2 * p
        v = 0.9 * v + gradient
        p -= 0.1 * (gradient + 0.9 * v)
        assert model.p.item() == pytest.approx(p, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "kind", "lr"),
    [
        ("sgd", torch.optim.SGD, 1e-3),
        ("sgd_momentum", torch.optim.SGD, 1e-2),
        ("sgd_nesterov", torch.optim.SGD, 1e-2),
        ("adam", torch.optim.Adam, 1e-3),
        ("adamw", torch.optim.AdamW, 1e-3),
        ("rmsprop", torch.optim.RMSprop, 1e-3),
        ("adagrad", torch.optim.Adagrad, 1e-2),
        ("muon", MuonWithAdamW, 0.02),
    ],
)
def test_option_names_its_class_and_learning_rate(shipped, name, kind, lr):
    optimizer = shipped(small_model(), f"optimizer={name}")
    assert type(optimizer) is kind
    assert optimizer.param_groups[0]["lr"] == lr


def names(part: torch.optim.Optimizer) -> list[str]:
    return [name for group in part.param_groups for name in group["param_names"]]


def test_muon_takes_the_hidden_matrices_and_adamw_the_head_and_the_biases():
    muon, adamw = MuonWithAdamW(small_model().named_parameters()).parts
    assert isinstance(muon, torch.optim.Muon)
    assert names(muon) == ["1.weight", "3.weight"]
    assert isinstance(adamw, torch.optim.AdamW)
    assert names(adamw) == ["1.bias", "3.bias", "5.weight", "5.bias"]


def test_muon_leaves_batch_norm_to_adamw():
    muon, adamw = MuonWithAdamW(MLP([6], batch_norm=True).named_parameters()).parts
    assert names(muon) == ["1.weight"]
    assert names(adamw) == ["1.bias", "2.weight", "2.bias", "4.weight", "4.bias"]


def test_muon_with_adamw_takes_the_steps_of_its_two_parts():
    ours, separate = small_model(), small_model()
    parameters = dict(separate.named_parameters())
    muon = torch.optim.Muon(
        [parameters.pop("1.weight"), parameters.pop("3.weight")], lr=0.02, momentum=0.95, weight_decay=0.0
    )
    adamw = torch.optim.AdamW(parameters.values(), lr=3e-3, weight_decay=0.0)
    train(ours, MuonWithAdamW(ours.named_parameters()), range(4))
    for step in range(4):
        generator = torch.Generator().manual_seed(step)
        separate(torch.randn(16, 8, generator=generator)).square().mean().backward()
        for part in (muon, adamw):
            part.step()
            part.zero_grad()
    assert bits(ours) == bits(separate)


def test_muon_with_adamw_goes_on_from_its_state_dict_to_the_same_bits(tmp_path):
    whole = small_model()
    train(whole, MuonWithAdamW(whole.named_parameters()), range(6))
    first = small_model()
    optimizer = MuonWithAdamW(first.named_parameters())
    train(first, optimizer, range(3))
    torch.save({"model": first.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    second = small_model(seed=1)
    optimizer = MuonWithAdamW(second.named_parameters())
    second.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    train(second, optimizer, range(3, 6))
    assert bits(second) == bits(whole)
    assert bits(second) != bits(first)


def test_schedule_reaches_both_parts_of_muon():
    model = small_model()
    optimizer = MuonWithAdamW(model.named_parameters(), lr=0.02, adamw_lr=3e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    train(model, optimizer, range(1))
    scheduler.step()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == [0.01, 1.5e-3]


@pytest.mark.parametrize(("index", "moved"), [(0, ["1.weight", "3.weight"]), (1, ["1.bias", "5.weight"])])
def test_learning_rate_of_each_group_moves_its_own_parameters(index, moved):
    model = small_model()
    optimizer = MuonWithAdamW(model.named_parameters())
    optimizer.param_groups[1 - index]["lr"] = 0.0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer, range(2))
    changed = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
    assert set(moved) <= set(changed)
    others = {0: {"1.bias", "3.bias", "5.weight", "5.bias"}, 1: {"1.weight", "3.weight"}}[index]
    assert not others & set(changed)


def test_muon_says_what_is_missing_where_torch_has_none(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(ImportError, match=r"optimizer=muon needs torch\.optim\.Muon \(torch >= 2\.9\); this is torch"):
        MuonWithAdamW(small_model().named_parameters())


def test_muon_says_that_it_needs_a_hidden_layer():
    with pytest.raises(ValueError, match="needs a hidden layer"):
        MuonWithAdamW(MLP([]).named_parameters())


def test_muon_with_adamw_takes_groups_with_a_weight_decay_of_their_own():
    model = small_model()
    named = list(model.named_parameters())
    groups = [{"params": named[::2]}, {"params": named[1::2], "weight_decay": 0.0}]
    muon, adamw = MuonWithAdamW(groups, weight_decay=0.3, adamw_weight_decay=0.2).parts
    assert names(muon) == ["1.weight", "3.weight"]
    assert [(group["param_names"], group["weight_decay"]) for group in adamw.param_groups] == [
        (["5.weight"], 0.2),
        (["1.bias", "3.bias", "5.bias"], 0.0),
    ]
    assert muon.param_groups[0]["weight_decay"] == 0.3
    train(model, MuonWithAdamW(groups, adamw_weight_decay=0.2), range(2))
