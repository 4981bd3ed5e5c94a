import pytest
import torch

from fmnist_lit.classifier import Classifier
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.train import train

EMA = ("callbacks=ema", "callbacks.ema.decay=0.7", "data.batch_size=32", "optimizer.lr=0.1")


@pytest.fixture
def recorded(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """The weights after each optimiser step of whatever is trained."""
    steps = []
    original = Classifier.configure_optimizers

    def configure_optimizers(self):
        configured = original(self)
        configured["optimizer"].register_step_post_hook(
            lambda *_: steps.append({name: p.detach().clone() for name, p in self.named_parameters()})
        )
        return configured

    monkeypatch.setattr(Classifier, "configure_optimizers", configure_optimizers)
    return steps


@pytest.mark.parametrize("steps_per_batch", [1, 50])
def test_checkpoint_holds_the_average_over_all_optimizer_steps(configure, tmp_path, recorded, steps_per_batch):
    train(configure(*EMA, f"trainer.steps_per_batch={steps_per_batch}"))
    assert len(recorded) == 16
    average = recorded[0]
    for weights in recorded[1:]:
        average = {name: 0.7 * value + 0.3 * weights[name] for name, value in average.items()}
    checkpoint = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")
    for name, value in average.items():
        torch.testing.assert_close(checkpoint["state_dict"][name], value)
        assert torch.equal(checkpoint["current_model_state"][name], recorded[-1][name])


def test_average_is_what_is_validated_and_tested(configure, tmp_path):
    """With a decay of nearly 1 the average stays where it was after the first step, however well training goes."""
    overrides = ("callbacks=ema", "data.batch_size=32", "optimizer=adam", "trainer.max_epochs=4")
    plain = train(configure(*overrides, "callbacks.ema.decay=0", run_dir="plain"))
    averaged = train(configure(*overrides, "callbacks.ema.decay=0.9999", run_dir="averaged"))
    assert averaged["val_loss"] > plain["val_loss"] + 0.2
    assert averaged["test_loss"] > plain["test_loss"] + 0.2


def test_averaging_leaves_the_training_alone(configure, tmp_path):
    for name, callbacks in (("with", "ema"), ("without", "default")):
        train(configure(f"callbacks={callbacks}", "data.batch_size=32", run_dir=name))
    with_, without = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt") for name in ("with", "without"))
    for name, weight in without["state_dict"].items():
        assert torch.equal(with_["current_model_state"][name], weight)
