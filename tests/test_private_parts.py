"""What is used of others without being promised by them: where, and whether it is still there."""

import inspect
import logging
import re
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch.utils.data import DataLoader, TensorDataset

import fmnist_lit
from fmnist_lit.captured import MODULE_HOOKS, OPTIMIZER_HOOKS

SOURCE = Path(fmnist_lit.__file__).parent
MODULES = {str(file.relative_to(SOURCE.parent)): file.read_text(encoding="utf-8") for file in SOURCE.rglob("*.py")}
MODULES |= {file.name: file.read_text(encoding="utf-8") for file in (SOURCE.parent / "hydra_plugins").rglob("*.py")}
ONE_PLACE = {
    r"from hydra\._internal\.utils import": "fmnist_lit/command_line/launch.py",
    r"from hydra\._internal\.core_plugins": "grid_sweeper.py",
    r"from omegaconf\._": "fmnist_lit/run/files.py",
    r"Singleton\._instances|BaseContainer\._resolvers": "fmnist_lit/api/guest.py",
    r"logging\._handler": "fmnist_lit/api/guest.py",
    r"epoch_loop\.": "fmnist_lit/run/checkpoint.py",
    r"_pb2 import": "fmnist_lit/loggers/protocol.py",
    r"_every_n_train_steps": "fmnist_lit/chunked.py",
    r"_current_fx_name": "fmnist_lit/chunked.py",
    r"_average_model": "fmnist_lit/averaging.py",
    r"_on_(before|after)_step": "fmnist_lit/chunked.py",
    r"_optimizer_step_p(re|ost)_hooks|_(forward|backward)_(pre_)?hooks": "fmnist_lit/captured.py",
    r"_get_train_description": "fmnist_lit/loggers/progress_bar.py",
}


@pytest.mark.parametrize(("pattern", "place"), ONE_PLACE.items())
def test_private_part_is_used_in_one_place(pattern, place):
    assert {name for name, text in MODULES.items() if re.search(pattern, text)} == {place}


@pytest.mark.parametrize("name", ["hydra._internal", "omegaconf._", "lightning.pytorch.trainer.connectors"])
def test_nothing_else_private_is_imported(name):
    imports = {
        line.strip()
        for text in MODULES.values()
        for line in re.findall(rf"^\s*(?:from|import) {re.escape(name)}.*", text, re.M)
    }
    known = {
        "from hydra._internal.utils import _run_hydra, get_args_parser",
        "from hydra._internal.core_plugins.basic_sweeper import BasicSweeper",
        "from omegaconf._utils import get_yaml_loader",
    }
    assert imports <= known


def test_hydra_parses_a_command_line_as_launch_needs_it():
    from hydra._internal.utils import get_args_parser

    args = get_args_parser().parse_intermixed_args(["-m", "a=1", "--cfg", "job"])
    assert (args.overrides, args.multirun, args.cfg) == (["a=1"], True, "job")
    for name in ("help", "hydra_help", "info", "shell_completion", "experimental_rerun", "config_dir", "config_path"):
        assert hasattr(args, name), f"hydra's argument parser has no {name} any more: command_line/launch.py"


def test_hydra_takes_a_parsed_command_line():
    from hydra._internal.utils import _run_hydra

    taken = {"args", "args_parser", "task_function", "config_path", "config_name"}
    assert taken <= set(inspect.signature(_run_hydra).parameters), "command_line/launch.py"


def test_what_there_is_one_of_in_a_process_is_where_the_api_puts_it_aside():
    from hydra.core.singleton import Singleton
    from omegaconf.basecontainer import BaseContainer

    assert isinstance(Singleton._instances, dict), "api/guest.py"
    assert "oc.env" in BaseContainer._resolvers, "api/guest.py"
    assert isinstance(logging._handlerList, list), "api/guest.py"
    assert hasattr(logging._handlers, "clear"), "api/guest.py"


def test_hydras_basic_sweeper_splits_as_the_grid_sweeper_needs_it():
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    assert {"split_arguments", "split_overrides_to_chunks"} <= set(dir(BasicSweeper)), "hydra_plugins/…/grid_sweeper.py"


def test_yaml_loader_of_omegaconf_takes_numbers_as_hydra_does():
    import yaml
    from omegaconf._utils import get_yaml_loader

    assert yaml.load("1e-3", get_yaml_loader()) == 1e-3, "run/files.py reads .hydra/*.yaml with it"


class Module(pl.LightningModule):
    def __init__(self, automatic: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.automatic_optimization = automatic

    def training_step(self, batch, index):
        loss = self.layer(batch[0]).sum()
        if self.automatic_optimization:
            return loss
        self.manual_backward(loss)
        self.optimizers().step()
        return None

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_hooks_and_counters_of_a_step_are_where_a_recorded_one_looks_for_them():
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters())
    assert not any(getattr(layer, name) for name in MODULE_HOOKS), "captured.py"
    assert not any(getattr(optimizer, name) for name in OPTIMIZER_HOOKS), "captured.py"
    layer.register_forward_pre_hook(print)
    layer.register_forward_hook(print)
    layer.register_full_backward_pre_hook(print)
    layer.register_full_backward_hook(print)
    optimizer.register_step_pre_hook(print)
    optimizer.register_step_post_hook(print)
    assert all(getattr(layer, name) for name in MODULE_HOOKS), "captured.py"
    assert all(getattr(optimizer, name) for name in OPTIMIZER_HOOKS), "captured.py"
    counting = LightningOptimizer(optimizer)
    assert counting._on_before_step() is counting._on_after_step() is None, "chunked.py counts its steps so"


@pytest.mark.parametrize("automatic", [True, False])
@pytest.mark.filterwarnings("ignore")
def test_state_of_lightnings_loops_has_the_keys_that_checkpoints_change(tmp_path, automatic):
    loader = DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    trainer = pl.Trainer(max_epochs=1, enable_checkpointing=False, default_root_dir=tmp_path, **quiet)
    trainer.fit(Module(automatic), loader)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loop = torch.load(tmp_path / "a.ckpt", weights_only=True)["loops"]["fit_loop"]
    where = "run/checkpoint.py moves these counters"
    counters = {"ready", "started", "processed", "completed"}
    assert set(loop["epoch_progress"]["current"]) == set(loop["epoch_progress"]["total"]) == counters, where
    batches = loop["epoch_loop.batch_progress"]
    assert set(batches) == {"total", "current", "is_last_batch"}, where
    assert set(batches["current"]) == counters, where
    assert isinstance(loop["state_dict"], dict), where
    steps = {"ready", "completed"}
    assert set(loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]) == steps, where
    assert set(loop["epoch_loop.manual_optimization.optim_step_progress"]["total"]) == steps, where


def test_torch_keeps_the_hooks_of_a_module_where_a_stack_looks():
    layer = torch.nn.Linear(1, 1)
    assert (layer._forward_hooks, layer._forward_pre_hooks) == ({}, {}), "captured.is_hooked"
    torch.nn.utils.prune.l1_unstructured(layer, "weight", amount=1)
    assert layer._forward_pre_hooks, "captured.is_hooked"


def test_lightning_still_has_what_is_asked_of_its_callbacks():
    from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, WeightAveraging

    checkpoint = ModelCheckpoint(every_n_train_steps=3)
    assert checkpoint._every_n_train_steps == 3, "chunked.acts_by_step"
    assert checkpoint._train_time_interval is None, "chunked.acts_by_step"
    assert "_get_train_description" in dir(RichProgressBar), "loggers/progress_bar.py"
    assert "_average_model" in vars(WeightAveraging()), "averaging.py"
    assert "_current_fx_name" in vars(pl.LightningModule()), "chunked.ChunkedClassifier.__setattr__"


def test_tensorboard_still_has_the_messages_that_the_logger_writes():
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    assert Event(step=3, session_log=SessionLog(status=SessionLog.START)).step == 3
    fields = {field.name for field in HParamsPluginData.DESCRIPTOR.fields}
    assert "experiment" in fields, "loggers/tensorboard.py marks which hyper-parameters differ"
