import pytest
import torch
from hydra.utils import instantiate
from torch.nn import functional as F

from fmnist_lit.losses import LogSoftmaxNLLLoss, l1_penalty
from fmnist_lit.model import MLP

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 5 * torch.randn(64, 10, generator=GENERATOR)
LABELS = torch.randint(0, 10, (64,), generator=GENERATOR)


@pytest.fixture
def shipped(configure):
    return lambda *overrides: instantiate(configure(*overrides).loss)


def test_cross_entropy_is_log_of_summed_exponentials_minus_the_true_logit(shipped):
    by_hand = (LOGITS.exp().sum(dim=1).log() - LOGITS[torch.arange(64), LABELS]).mean()
    assert shipped("loss=cross_entropy")(LOGITS, LABELS).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_nll_equals_cross_entropy():
    nll = LogSoftmaxNLLLoss()(LOGITS, LABELS)
    assert nll.item() == pytest.approx(F.cross_entropy(LOGITS, LABELS).item(), abs=1e-6)


def test_nll_has_the_gradient_of_cross_entropy(shipped):
    gradients = []
    for name in ("nll", "cross_entropy"):
        logits = LOGITS.clone().requires_grad_()
        shipped(f"loss={name}")(logits, LABELS).backward()
        gradients.append(logits.grad)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-8)


# Two samples, three classes; the one-hot targets are (0, 1, 0) and (1, 0, 0)
HAND_LOGITS = torch.tensor([[1.0, 3.0, -2.0], [0.5, 0.0, -1.0]])
HAND_LABELS = torch.tensor([1, 0])


@pytest.mark.parametrize(
    ("name", "by_hand"),
    [
        ("mse", (1**2 + 2**2 + 2**2 + 0.5**2 + 0**2 + 1**2) / 6),
        ("l1", (1 + 2 + 2 + 0.5 + 0 + 1) / 6),
    ],
)
def test_one_hot_loss_is_averaged_over_samples_and_classes(shipped, name, by_hand):
    assert shipped(f"loss={name}")(HAND_LOGITS, HAND_LABELS).item() == pytest.approx(by_hand, rel=1e-6)


def test_bce_is_the_mean_of_ten_yes_no_cross_entropies(shipped):
    yes = torch.sigmoid(LOGITS.double())
    target = torch.eye(10, dtype=torch.float64)[LABELS]
    by_hand = -(target * yes.log() + (1 - target) * (1 - yes).log()).mean()
    assert shipped("loss=bce_with_logits")(LOGITS, LABELS).item() == pytest.approx(by_hand.item(), rel=1e-5)


@pytest.mark.parametrize("seed", range(5))
def test_l1_is_never_negative(shipped, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = 10 ** (seed - 2) * torch.randn(100, 10, generator=generator)
    assert shipped("loss=l1")(logits, torch.randint(0, 10, (100,), generator=generator)) >= 0


@pytest.mark.parametrize("name", ["mse", "l1"])
def test_one_hot_loss_is_zero_on_its_own_target(shipped, name):
    assert shipped(f"loss={name}")(torch.eye(10), torch.arange(10)) == 0


def test_one_hot_loss_keeps_the_dtype_of_the_logits(shipped):
    assert shipped("loss=mse")(LOGITS.double(), LABELS).dtype == torch.float64


@pytest.mark.parametrize("smoothing", [0.1, 0.3])
def test_label_smoothing_spreads_its_share_over_all_ten_classes(shipped, smoothing):
    target = torch.full((64, 10), smoothing / 10)
    target[torch.arange(64), LABELS] += 1 - smoothing
    by_hand = -(target * LOGITS.log_softmax(dim=1)).sum(dim=1).mean()
    loss = shipped("loss=label_smoothing", f"loss.label_smoothing={smoothing}")(LOGITS, LABELS)
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_l1_penalty_sums_the_absolute_weights():
    weights = [torch.tensor([[1.0, -2.0], [0.5, 0.0]]), torch.tensor([[-3.0]])]
    assert l1_penalty(weights).item() == 6.5


def test_l1_penalty_leaves_biases_and_norms_out():
    model = MLP([4], batch_norm=True)
    weights = sum(p.abs().sum() for name, p in model.named_parameters() if name in ("1.weight", "4.weight"))
    assert l1_penalty(model.parameters()).item() == pytest.approx(weights.item(), rel=1e-6)


def test_l1_penalty_pulls_each_weight_by_its_sign():
    weight = torch.tensor([[2.0, -0.1]], requires_grad=True)
    l1_penalty([weight]).backward()
    assert weight.grad.tolist() == [[1.0, -1.0]]
