import json
import sys

import hydra
import pytest
from conftest import options
from jsonschema import Draft7Validator
from omegaconf import OmegaConf

from fmnist_lit import schema
from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config.check import GROUPS
from fmnist_lit.config.rules import RULES

FILES = [file for file in sorted(CONF.rglob("*.yaml")) if "hydra" not in file.parts and "local" not in file.parts]
# of each type, at the ends of the ranges that there are and beyond them
VALUES = (
    *(None, True, False, -1, 0, 1, 2, 27, 28, 99, 100, 1024, 1025, 60_000, 60_001, 65_536, 65_537, 2**32 - 1, 2**32),
    *(
        -0.1,
        0.5,
        1.5,
        "",
        "x",
        "a/b",
        "x" * 129,
        "auto",
        "max",
        "val",
        "test",
        "accuracy/val",
        "accuracy/test",
        "latest",
    ),
    *([], [1], [0], [-1], [0.5], [0.9, 0.99], [0.9, 1], ["val"], ["val", "test"], ["x"], [""], [[]]),
    *({}, {"_target_": "torchvision.datasets.KMNIST"}, {"x": 1}),
)


@pytest.fixture(scope="module")
def made() -> schema.Schema:
    made = schema.schema()
    Draft7Validator.check_schema(made)
    return made


def of_file(made: schema.Schema, group: str) -> Draft7Validator:
    """Of a file in a group's folder."""
    return Draft7Validator(made["$defs"][group] if group in GROUPS else made)


def tree(key: str, value: object) -> dict:
    """A configuration of nothing but a key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def document(key: str, value: object) -> dict:
    """A configuration in which the value of a key is all that can be wrong."""
    node = tree(key, value)
    if key.startswith("data.source."):
        node["data"]["source"]["_target_"] = "fmnist_lit.data.image_folder.ImageFolder"
    return node


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(CONF).as_posix())
def test_every_shipped_file_is_accepted(made, file):
    group = file.relative_to(CONF).parts[0]
    of_file(made, group).validate(OmegaConf.to_container(OmegaConf.load(file)))


@pytest.mark.parametrize("choice", [f"{group}={name}" for group in ("experiment", "study") for name in options(group)])
def test_every_composed_configuration_is_accepted(made, choice):
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        whole = hydra.compose("config", [choice])
    Draft7Validator(made).validate(OmegaConf.to_container(whole, resolve=False))


@pytest.mark.parametrize("key", RULES)
def test_schema_says_what_the_rule_says(made, key):
    refused = [value for value in VALUES if not Draft7Validator(made).is_valid(document(key, value))]
    assert refused == [value for value in VALUES if not RULES[key].check(value)] != []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sed", 1),
        ("experiment.x", 1),
        ("data.batchsize", 32),
        ("data.augmentation.flips", True),
        ("data._target_", "mine.Data"),
        ("regularization.l2", 0.1),
        ("trainer.epochs", 3),
        ("trainer.logger", True),
        ("optimizer", {"_target_": "torch.optim.SGD", "_partial_": True, "learning_rate": 0.1}),
        ("optimizer", {"_target_": "torch.optim.SGD", "_partial_": False}),
        ("optimizer", {"_target_": "torch.optim.SGD", "params": []}),
        ("callbacks.ema", {"_target_": "fmnist_lit.averaging.WeightEMA", "decays": 0.9}),
        ("callbacks.ema", None),
    ],
)
def test_what_nobody_reads_is_refused(made, key, value):
    assert not Draft7Validator(made).is_valid(tree(key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer", {"_target_": "mine.SGD", "_partial_": True, "lr": [0.1, 0.2], "learning_rate": 0.1}),
        ("optimizer", {"_target_": "torch.optim.Adamax", "_partial_": True, "maximize": True}),
        ("callbacks.mine", {"_target_": "mine.Callback"}),
        ("data.source", {"_target_": "mine.Images", "_partial_": True, "size": 3}),
        ("data.batch_size", "${oc.env:BATCH_SIZE}"),
        ("model.hidden_sizes", ["${x}", 10]),
    ],
)
def test_what_is_of_somebodys_own_or_said_elsewhere_is_accepted(made, key, value):
    Draft7Validator(made).validate(tree(key, value))


def test_file_of_a_group_is_held_to_its_rules(made):
    optimizer = of_file(made, "optimizer")
    assert optimizer.is_valid({"defaults": ["sgd_momentum"], "nesterov": True})
    assert not optimizer.is_valid({"_target_": "torch.optim.SGD", "lr": -1})
    assert not optimizer.is_valid({"_target_": "torch.optim.SGD", "lrr": 1})


def test_command_prints_what_an_editor_shows_of_a_key(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["schema"])
    schema.main()
    properties = json.loads(capsys.readouterr().out)["properties"]
    told = properties["data"]["properties"]["val_size"]["description"]
    assert "must be a whole number >= 0" in told
    assert "image_folder: below 1 it is a share of the training images" in told
    assert "order of the batches" in properties["seed"]["description"]
    targets = properties["optimizer"]["properties"]["_target_"]["anyOf"][0]["enum"]
    assert "fmnist_lit.optimizers.MuonWithAdamW" in targets
