import argparse

import pytest
from omegaconf import OmegaConf

from fmnist_lit.command_line.compose import Composer, composer
from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import parse
from fmnist_lit.config.tree import plain

ARGS = argparse.Namespace(config_dir=None, overrides=[])
JOBS = [
    ["optimizer=adam", "optimizer.lr=0.1", "model.hidden_sizes=[8]", "seed=1"],
    ["optimizer=adam", "optimizer.lr=0.2", "model.hidden_sizes=[]", "seed=2"],
    ["optimizer=sgd", "optimizer.lr=1e-3", "model.hidden_sizes=[8,8]", "seed=1"],
    ["optimizer=adam", "optimizer.lr=${seed}", "model.hidden_sizes=[16]", "seed=7"],
    ["optimizer=adam", "optimizer.betas=[0.5,0.9]", "model.hidden_sizes=[16]", "seed=1"],
    ["optimizer=adam", "data.augmentation={flip:true,shift:2}", "seed=1"],
    ["optimizer=adam", "data.augmentation={flip:false}", "seed=1"],
]


@pytest.fixture
def composed(monkeypatch):
    """What is composed by Hydra, with how often."""
    calls = []
    compose = Composer.compose
    monkeypatch.setattr(Composer, "compose", lambda self, words: calls.append(words) or compose(self, words))
    return calls


def without_hydra(cfg):
    return {key: value for key, value in plain(cfg, resolve=False).items() if key != "hydra"}


def test_job_is_what_hydra_makes_of_it():
    with composer(ARGS) as compose:
        for job in JOBS:
            assert without_hydra(compose.accept(parse(job))) == without_hydra(compose.compose(tuple(job)))


def test_jobs_that_choose_the_same_files_are_composed_once(composed):
    with composer(ARGS) as compose:
        for rate in range(1, 20):
            for optimizer in ("adam", "sgd"):
                compose.accept(parse([f"optimizer={optimizer}", f"optimizer.lr={rate}"]))
    assert len(composed) == 2


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("optimizer.lr=-1", "optimizer.lr=-1: must be"),
        ("optimizer.lr=text", "optimizer.lr=text: must be"),
        ("optimizer.lr=???", "optimizer.lr=???: must be given"),
        ("model.hidden_sizes=[0]", "model.hidden_sizes=[0]: must be"),
        ("data.val_size=70000", "together more than the 60000 training images"),
        ("optimizer._target_=os.system", "optimizer._target_=os.system: not a class"),
        ("optimizer.lr=${nowhere}", "optimizer.lr"),
        ("data.augmentation={flip:3}", "data.augmentation.flip=3: must be"),
        ("optimizer.lrr=1", "optimizer.lrr"),
    ],
)
def test_a_later_job_is_refused_as_the_first_would_be(override, told):
    values = ["optimizer.lr=0.1", "model.hidden_sizes=[8]", "data.val_size=100", "optimizer._target_=torch.optim.SGD"]
    rest = [value for value in values if value.split("=")[0] != override.split("=")[0]]
    with composer(ARGS) as compose:
        compose.accept(parse(values))
        with pytest.raises(ConfigError) as later:
            compose.accept(parse([*rest, override]))
    assert told in str(later.value)
    with composer(ARGS) as compose, pytest.raises(ConfigError) as first:
        compose.accept(parse([*rest, override]))
    assert str(later.value) == str(first.value)


def test_an_accepted_job_leaves_nothing_in_what_is_composed_for_others():
    with composer(ARGS) as compose:
        compose.accept(parse(["seed=1"]))
        compose.accept(parse(["seed=2"]))
        assert compose("seed=1").seed == 1
        assert OmegaConf.select(compose(), "seed") == 0
