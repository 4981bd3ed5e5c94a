import ast
import functools
import inspect
import re
import subprocess
import sys

import hydra
import pytest
import torch
from conftest import QUIET, SMALL
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

import fmnist_lit.build
import fmnist_lit.command_line.launch
import fmnist_lit.train
from fmnist_lit.build import build as build_part
from fmnist_lit.build import make_trainer
from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config import ConfigError
from fmnist_lit.config.arguments import GIVEN
from fmnist_lit.config.check import TRACKERS, check_configuration
from fmnist_lit.config.lightning_options import REFUSED_TRAINER_OPTIONS
from fmnist_lit.config.rules import RULES
from fmnist_lit.config.tree import walk
from fmnist_lit.config.trust import require_trusted

FILES = [file.relative_to(CONF).with_suffix("") for file in CONF.glob("*/**/*.yaml")]
# every shipped choice but Hydra's own two
OPTIONS = sorted(tuple(file.as_posix().split("/", 1)) for file in FILES if file.parts[0] != "hydra")


@pytest.fixture
def refused(launch_here, tmp_path, capsys, monkeypatch):
    """Launch a command line that must be refused; its message."""
    monkeypatch.setattr(
        fmnist_lit.command_line.launch, "run_job", lambda cfg: None
    )  # what is wrongly accepted need not train

    def launch(*arguments: str) -> str:
        assert launch_here(*arguments) == 2
        out, message = capsys.readouterr()
        assert out == ""
        assert message.startswith("error: ")
        assert 1 <= len(message.splitlines()) <= 2
        assert "Traceback" not in message
        assert list(tmp_path.iterdir()) == []
        return message

    return launch


WRONG_VALUES = [
    ("optimizer.lr=nan", "nan", "> 0"),
    ("optimizer.lr=inf", "inf", "> 0"),
    ("optimizer.lr=1e400", "inf", "> 0"),
    ("optimizer.lr=-1", "-1", "> 0"),
    ("optimizer.lr=0", "0", "> 0"),
    ("optimizer.lr=abc", "abc", "> 0"),
    ("optimizer.lr=null", "null", "> 0"),
    ("optimizer.lr=true", "true", "> 0"),
    ("optimizer.lr=[0.1]", "0.1", "> 0"),
    ("optimizer.lr={a:1}", "a", "> 0"),
    ("optimizer.lr='0.1'", "0.1", "number"),
    ("optimizer.lr=${nope}", "nope", "cannot be resolved"),
    ("optimizer.momentum=1", "1", "< 1"),
    ("optimizer.weight_decay=-0.1", "-0.1", ">= 0"),
    ("data.batch_size=0", "0", "whole number from 1"),
    ("data.batch_size=-64", "-64", "whole number from 1"),
    ("data.batch_size=64.5", "64.5", "whole number from 1"),
    ("data.batch_size=60001", "60001", "to 60000"),
    ("data.val_size=60000", "60000", "more than the 60000 training images"),
    ("data.val_size=1.5", "1.5", "a whole number >= 0 or a finite number > 0 and < 1"),
    ("data.test_size=10001", "10001", "more than the 10000 test images"),
    ("data.shuffle=maybe", "maybe", "true or false"),
    ("data.normalize=1", "1", "true or false"),
    ("data.data_dir=''", "data.data_dir=", "text"),
    ("trainer.max_epochs=abc", "abc", "whole number >= 1"),
    ("trainer.max_epochs=0", "0", "whole number >= 1"),
    ("trainer.max_steps=0", "0", "-1"),
    ("trainer.accelerator=tpu", "tpu", "cpu"),
    ("trainer.precision=8", "8", "bf16-mixed"),
    ("trainer.devices=0", "0", "whole number from 1"),
    ("trainer.gradient_clip_val=0", "0", "> 0"),
    ("model.hidden_sizes=[0]", "0", "whole number from 1"),
    ("model.hidden_sizes=512", "512", "a list"),
    ("model.activation=rellu", "rellu", "relu"),
    ("model.dropout=1", "1", "< 1"),
    ("regularization.l1=-1", "-1", ">= 0"),
    ("regularization.decay_biases=0", "0", "true or false"),
    ("flip_average=2", "2", "true or false"),
    ("data.augmentation.flip=1", "1", "true or false"),
    ("data.augmentation.shift=28", "28", "from 0 to 27"),
    ("seed=1.5", "1.5", "whole number"),
    ("seed=-1", "-1", "whole number"),
    ("seed=null", "null", "whole number"),
    ("num_threads=0", "0", "whole number"),
    ("evaluate_each_epoch=[train]", "train", "val, test"),
]


@pytest.mark.parametrize(("argument", "value", "allowed"), WRONG_VALUES, ids=[case[0] for case in WRONG_VALUES])
def test_wrong_value_is_refused_with_its_key_and_what_is_allowed(refused, argument, value, allowed):
    message = refused(argument)
    assert argument.split("=")[0] in message
    assert value in message
    assert allowed in message


OPTIONS_OF_ONE = [
    ("scheduler=step", "scheduler.step_size=0"),
    ("scheduler=step", "scheduler.gamma=nan"),
    ("scheduler=one_cycle", "scheduler.pct_start=1.5"),
    ("scheduler=warmup_linear", "scheduler.warmup_fraction=1"),
    ("scheduler=warmup_polynomial", "scheduler.power=0"),
    ("scheduler=cosine", "scheduler.eta_min=-1"),
    ("scheduler=constant", "scheduler.interval=batch"),
    ("loss=label_smoothing", "loss.label_smoothing=2"),
    ("optimizer=adam", "optimizer.betas=[0.9]"),
    ("optimizer=adam", "optimizer.betas=[0.9,1]"),
    ("optimizer=muon", "optimizer.adamw_lr=0"),
    ("optimizer=muon", "optimizer.ns_steps=0"),
    ("callbacks=ema", "callbacks.ema.decay=1"),
    ("optimizer=sgd", "+optimizer.dampening=nan"),
]


@pytest.mark.parametrize(("choice", "argument"), OPTIONS_OF_ONE)
def test_wrong_value_of_a_choices_own_key_is_refused(refused, choice, argument):
    assert argument.split("=")[0].lstrip("+") in refused(choice, argument)


@pytest.mark.parametrize(
    ("argument", "suggestion"),
    [
        ("optimizer.lrr=1", "optimizer.lr?"),
        ("optimizer.learning_rate=1", "optimizer"),
        ("optimiser=adam", "optimizer?"),
        ("batch_size=32", "data.batch_size?"),
        ("data.batchsize=32", "data.batch_size?"),
        ("+data.batchsize=32", "data.batch_size?"),
        ("+data.augmentation.flips=true", "data.augmentation.flip?"),
        ("trainer.epochs=3", "trainer.max_epochs?"),
        ("model.hiden_sizes=[3]", "model.hidden_sizes?"),
        ("+regularization.l2=1", "regularization.l1?"),
        ("sed=1", "seed?"),
        ("+sed=1", "did you mean seed?"),
        ("lr=0.1", "did you mean optimizer.lr?"),
        ("+lr=0.1", "did you mean optimizer.lr?"),
        ("momentum=0.9", "did you mean optimizer.momentum?"),
        ("shufle=true", "did you mean data.shuffle?"),
        ("max_epochs=3", "did you mean trainer.max_epochs?"),
        ("epochs=3", "did you mean trainer.max_epochs?"),
        ("learning_rate=0.1", "did you mean optimizer.lr?"),
        ("bs=32", "did you mean data.batch_size?"),
        ("hidden_sizes=[3]", "did you mean model.hidden_sizes?"),
        ("gpus=1", "did you mean trainer.accelerator or trainer.devices?"),
        ("trainer.lr=1", "did you mean optimizer.lr?"),
        ("trainer.limit_train_batches=0.1", "+trainer.limit_train_batches=… adds it"),
        ("callbacks.es.patience=3", "+callbacks.es.patience=… adds it"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_known_one(refused, argument, suggestion):
    message = refused(argument)
    assert argument.split("=")[0].lstrip("+") in message
    assert suggestion in message


EARLY_STOPPING = "+callbacks.es._target_=lightning.pytorch.callbacks.EarlyStopping"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["+trainer.max_epoch=3"],
            "trainer.max_epoch: lightning.Trainer takes no such argument; did you mean max_epochs?",
        ),
        (
            ["+callbacks.es._target_=lightning.pytorch.callbacks.EarlyStoping"],
            "es._target_=lightning.pytorch.callbacks.EarlyStoping: no such class; did you mean EarlyStopping?",
        ),
        (
            [EARLY_STOPPING, "+callbacks.es.patiance=3"],
            "callbacks.es.patiance: EarlyStopping takes no such argument; did you mean patience?",
        ),
        (["+optimizer.momentun=0.9"], "optimizer.momentun: SGD takes no such argument; did you mean momentum?"),
        # more of the kind
        ([EARLY_STOPPING], "callbacks.es.monitor: missing, EarlyStopping needs it"),
        (["optimizer._target_=torch.optim.Adamm"], "no such class; did you mean Adam?"),
        (["optimizer._target_=torch.optim.Adam"], "optimizer.momentum: Adam takes no such argument"),
        (["+optimizer._partal_=true"], "optimizer._partal_: SGD takes no such argument; did you mean _partial_?"),
        (["scheduler._target_=torch.optim.lr_scheduler.StepLr"], "did you mean StepLR?"),
        (["scheduler=step", "~scheduler.step_size"], "scheduler.step_size: missing, StepLR needs it"),
        (["scheduler=one_cycle", "+scheduler.pct_strat=0.2"], "did you mean pct_start?"),
        (["scheduler=one_cycle", "+scheduler.max_lr=0.2"], "scheduler.max_lr: OneCycleLR takes no such argument"),
        (["+loss.label_smothing=0.1"], "did you mean label_smoothing?"),
        (["loss=nll", "+loss.label_smoothing=0.1"], "LogSoftmaxNLLLoss takes no such argument; it takes none"),
        (["loss._target_=torch.nn.CrosEntropyLoss"], "did you mean CrossEntropyLoss?"),
        (["loss=mse", "+loss.loss.reductoin=sum"], "loss.loss.reductoin: MSELoss takes no such argument; did you mean"),
        (["loss=mse", "~loss.loss"], "loss.loss: missing, OneHotLoss needs it"),
        (["+logger.csv.flush_every=3"], "logger.csv.flush_every: CSVLogger takes no such argument; it takes run_dir"),
        (["+logger.l._target_=lightning.pytorch.loggers.CSVLoger"], "did you mean CSVLogger?"),
        (["+callbacks.progress_bar.refresh=3"], "did you mean refresh_rate?"),
        (
            [
                "+callbacks.list._target_=lightning.pytorch.callbacks.Timer",
                "+callbacks.list.duration=[{_target_:torch.nn.L11Loss}]",
            ],
            "callbacks.list.duration.0._target_=torch.nn.L11Loss: no such class; did you mean L1Loss?",
        ),
        (
            ["+hydra.callbacks.x={_target_:fmnist_lit.sweep.callback.SummaryCallback,fodler:x}"],
            "hydra.callbacks.x.fodler: SummaryCallback takes no such argument",
        ),
        ([EARLY_STOPPING, "+callbacks.es.monitor=???"], "callbacks.es.monitor=???: must be given"),
    ],
    ids=str,
)
def test_typing_error_in_a_part_is_refused_with_what_was_meant(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["+trainer.logger=false"], "trainer.logger=false: not an option of a run; the group logger"),
        (
            ["+trainer.enable_progress_bar=false"],
            "trainer.enable_progress_bar=false: not an option of a run; ~callbacks",
        ),
        (["+optimizer.params=[1]"], "optimizer.params: must be left out"),
        (["+scheduler.optimizer=x"], "scheduler.optimizer: must be left out"),
        ([EARLY_STOPPING, "+callbacks.es={_args_:[a],monitor:b}"], "callbacks.es.monitor: must be left out"),
        (["optimizer._partial_=false"], "optimizer._partial_: must be true"),
        (["~scheduler._partial_"], "scheduler._partial_: must be true"),
    ],
    ids=str,
)
def test_what_a_part_is_given_anyway_cannot_be_set(refused, arguments, message):
    assert message in refused(*arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["+trainer.limit_train_batches=0.1", "+trainer.detect_anomaly=true"],
        [EARLY_STOPPING, "+callbacks.es.monitor=accuracy/val"],
        [EARLY_STOPPING, "+callbacks.es._args_=[accuracy/val]"],
        [EARLY_STOPPING, "+callbacks.es._partial_=true"],
        ["+logger.w={_target_:lightning.pytorch.loggers.WandbLogger,entity:of_wandb_init}"],
        ["callbacks.checkpoint._target_=fmnist_lit.checkpoint.RunCheckpoint"],
        ["+optimizer.dampening=0.1"],
        ["scheduler=one_cycle", "+scheduler.div_factor=10"],
    ],
    ids=str,
)
def test_what_a_part_takes_is_accepted(configure, arguments):
    check_configuration(configure(*arguments))


def test_typing_error_in_a_file_or_in_one_job_of_a_sweep_is_refused(launch_here, tmp_path, capsys):
    (tmp_path / "mine" / "callbacks").mkdir(parents=True)
    callback = "defaults: [default]\nes:\n  _target_: lightning.pytorch.callbacks.EarlyStopping\n  moniter: loss\n"
    (tmp_path / "mine" / "callbacks" / "stop.yaml").write_text(callback)
    for arguments in (["callbacks=stop"], ["-m", "callbacks=default,stop"]):
        assert launch_here("--config-dir", "mine", *arguments) == 2
        assert capsys.readouterr().err.startswith("error: callbacks.es.moniter: EarlyStopping takes no such argument")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_typing_error_is_refused_before_anything_heavy_is_imported(tmp_path):
    code = (
        "import sys; from fmnist_lit.command_line.launch import launch; assert launch(['+trainer.max_epoch=3']) == 2; "
        "assert not {'torch', 'lightning', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
    assert list(tmp_path.iterdir()) == []


def test_what_the_checks_say_is_given_is_what_build_gives():
    """One list is for the checks, which must not import what the other needs."""
    given = {}
    for call in ast.walk(ast.parse(inspect.getsource(fmnist_lit.build))):
        if isinstance(call, ast.Call) and any(keyword.arg for keyword in call.keywords):
            names = {keyword.arg for keyword in call.keywords if keyword.arg}
            given[ast.unparse(call.args[0]) if call.args else ast.unparse(call.func)] = names
    assert given["Trainer"] <= set(REFUSED_TRAINER_OPTIONS)
    assert given["cfg.data"] - {"shuffle"} == set(GIVEN["data"])


@pytest.mark.parametrize(
    ("argument", "suggestion"),
    [
        ("optimizer=adma", "did you mean adam?"),
        ("loss=crossentropy", "did you mean cross_entropy?"),
        ("scheduler=cosin", "did you mean cosine?"),
        ("experiment=tutorail", "did you mean tutorial?"),
        ("data=cifar", "auto, fashion_mnist, image_folder, kmnist, mnist, synthetic"),
        ("model=resnet", "cnn, linear, mlp"),
    ],
)
def test_unknown_option_is_refused_with_the_options_there_are(refused, argument, suggestion):
    message = refused(argument)
    assert argument in message
    assert suggestion in message


@pytest.mark.parametrize(
    "argument",
    [
        "~optimizer",
        "~seed",
        "~scheduler.interval",
        "optimizer=null",
        "callbacks.checkpoint=null",
        "+callbacks.mine=null",
        "trainer=5",
    ],
)
def test_missing_part_is_refused_by_name(refused, argument):
    assert argument.strip("~+").split("=")[0].split(".")[0] in refused(argument)


@pytest.mark.parametrize("argument", ["foo", "optimizer.lr", "optimizer.lr=[", "=3"])
def test_word_that_is_no_override_is_named(refused, argument):
    message = refused("seed=1", argument)
    assert argument in message
    assert "seed=1" not in message


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (["data.train_size=58000", "data.val_size=5000"], ["data.train_size=58000", "data.val_size=5000", "60000"]),
        (["scheduler=plateau", "data.val_size=0"], ["scheduler=plateau", "data.val_size"]),
        (["scheduler=plateau", "evaluate_each_epoch=[test]"], ["scheduler=plateau", "val"]),
        (["scheduler=plateau", "experiment=tutorial"], ["scheduler=plateau"]),
        (["optimizer=sgd_nesterov", "optimizer.momentum=0"], ["nesterov", "optimizer.momentum > 0"]),
        (["optimizer=muon", "model=linear"], ["optimizer=muon", "model.hidden_sizes"]),
        (["model.batch_norm=true", "data.train_size=129"], ["data.batch_size=64", "model.batch_norm"]),
        (["ckpt_path=nowhere"], ["ckpt_path=nowhere"]),
    ],
    ids=" ".join,
)
def test_values_that_do_not_go_together_are_refused(refused, arguments, fragments):
    message = refused(*arguments)
    assert [fragment for fragment in fragments if fragment not in message] == []


@pytest.mark.parametrize("argument", ["optimizer.lr=1e-3,1e-2", "seed=range(3)", "optimizer=sgd,adam"])
def test_several_values_need_a_sweep(refused, argument):
    message = refused(argument)
    assert argument in message
    assert "-m" in message


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["optimizer.lr=1e-3,nan"], "optimizer.lr=nan"),
        (["optimizer.lr=1e-3,1e-2", "data.batch_size=32,64,0"], "data.batch_size=0"),
        (["optimizer=sgd,adma"], "optimizer=adma"),
    ],
    ids=" ".join,
)
def test_one_bad_value_in_a_sweep_refuses_all_of_it(refused, arguments, fragment):
    assert fragment in refused("-m", *arguments)


UNTRUSTED = [
    ["+callbacks.x._target_=builtins.print"],
    ["+callbacks.x._target_=os.system"],
    ["+callbacks.x._target_=fmnist_lit.command_line.launch.launch"],
    ["+callbacks.x._target_=lightning.pytorch.callbacks.callback.os.system"],
    ["+callbacks.x={_target_:builtins.print}"],
    ["+callbacks.x='${oc.create:{_target_:builtins.print}}'"],
    ["+callbacks.x='${oc.decode:\"{_target_: builtins.print}\"}'"],
    ["+callbacks.x.y='${oc.decode:\"[{_target_: builtins.print}]\"}'"],
    ["+optimizer.z='${oc.decode:\"{_target_: builtins.print}\"}'"],
    ["+hydra.callbacks.x='${oc.decode:\"{_target_: builtins.print}\"}'"],
    ["+callbacks.x={_target_:'${.name}',name:builtins.print}"],
    ["loss._target_='${hydra:job.name}'", "hydra.job.name=os.system"],
    ["callbacks.checkpoint._target_=builtins.exec"],
    ["+callbacks.checkpoint.extra=[{_target_:builtins.print}]"],
    ["loss._target_=os.system"],
    ["loss._target_='${oc.env:HOME}'"],
    ["loss._target_=torch.nn.modules.loss.warnings.warn"],
    ["loss=mse", "loss.loss._target_=torch.hub.load"],
    ["loss=mse", "+loss.loss.weight={_target_:torch.load,f:x}"],
    ["optimizer._target_=torch.load"],
    ["optimizer._target_=torch.optim.lr_scheduler.types.FunctionType"],
    ["+optimizer.closure={_target_:builtins.eval}"],
    ["scheduler._target_=subprocess.run"],
    ["+scheduler.lr_lambda={_target_:builtins.eval,_args_:['1']}"],
    ["model._target_=builtins.print"],
    ["data._target_=shutil.rmtree"],
    ["+trainer.plugins={_target_:builtins.print}"],
    ["+logger.x._target_=builtins.print"],
    ["+logger.csv.run={_target_:builtins.print}"],
    ["hydra.launcher._target_=os.system"],
    ["hydra.launcher._target_=hydra._internal.core_plugins.file_config_source.os.system"],
    ["hydra.launcher._target_=hydra_plugins.fmnist_lit_sweeper.grid_sweeper.Path.write_text"],
    ["hydra.sweeper._target_=hydra_plugins.fmnist_lit_sweeper.grid_sweeper.plan.hashlib.sha256"],
    ["loss._target_='${oc.env:PL_GLOBAL_SEED,torch.nn.MSELoss}'"],
    ["+hydra.callbacks.x='${now:%f}'"],
    ["+hydra.callbacks.x='${loss}'"],
    ["hydra.job_logging.handlers.console.class='${now:%f}'"],
    ["hydra.job_logging.formatters.plain.format='${now:%f}'"],
    ["hydra.sweeper._target_=os.system"],
    ["+hydra.callbacks.x._target_=builtins.print"],
    ["+hydra.callbacks.x={_target_:fmnist_lit.command_line.job.run_job}"],
    ["+hydra.callbacks.x._target_=hydra_plugins.fmnist_lit_sweeper.grid_sweeper.plan.write_json"],
    ["+hydra.callbacks.x._target_=hydra._internal.core_plugins.basic_launcher.log.info"],
    ["hydra.launcher._target_=hydra_plugins.hydra_ray_launcher.ray_aws_launcher.RayAWSLauncher"],
    ["+hydra.launcher.setup=[reboot]"],
    ["+hydra.launcher.srun_args=['--task-prolog=x']"],
    ["+hydra.launcher.additional_parameters={wrap:reboot}"],
    ["+hydra.launcher.comment='a\nreboot'"],
    ["+hydra.launcher.ray={init:{address:'ray://stranger'}}"],
    ["+hydra.launcher.ray={init:{runtime_env:{py_executable:reboot}}}"],
    ["+hydra.sweeper.custom_search_space=os.system"],
    ["+hydra.sweeper.storage='sqlite:///x'"],
    ["hydra.job_logging.handlers.console.class=os.system"],
    ["+hydra.hydra_logging.handlers.x.class=subprocess.Popen"],
    ["hydra.job_logging.handlers.console.formatter='ext://os.system'"],
]


REASONS = (
    *("not a class that", "not a logging class", "must be ext://", "no such key", "must be written out"),
    *("not a key of a", "one line"),
)


@pytest.mark.parametrize("arguments", UNTRUSTED, ids=" ".join)
def test_configuration_cannot_name_code_to_run(refused, arguments):
    message = refused(*arguments)
    assert any(reason in message for reason in REASONS)


ELSEWHERE = [
    "+hydra.job.env_set.LD_PRELOAD=x",
    "+hydra.job.env_set.CUDA_INJECTION64_PATH=x",
    "+hydra.job.env_set.OMP_TOOL_LIBRARIES=x",
    "hydra.job_logging.handlers.file.filename=/elsewhere/.bashrc",
    "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/../../a.log'",
    "hydra.job_logging.handlers.file.filename='${hydra.runtime.output_dir}/.bashrc'",
    "hydra.job_logging.handlers.file.class=logging.handlers.SocketHandler",
    "hydra.job.name=../x",
    "hydra.output_subdir=../conf",
    "+hydra.sweeper.custom_search_space=os.system",
]


@pytest.mark.parametrize("argument", ELSEWHERE)
def test_configuration_cannot_load_code_or_write_files_of_any_name(refused, argument):
    assert argument.split("=")[0].lstrip("+") in refused(argument)


def test_study_cannot_have_a_package_imported(launch_here, tmp_path, monkeypatch, capsys):
    """Its parameters are overrides; composing with them would import it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("open('ran', 'w').close()")
    (tmp_path / "stranger" / "study").mkdir(parents=True)
    study = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {hydra.searchpath: '[pkg://evil]'}}}\n"
    (tmp_path / "stranger" / "study" / "x.yaml").write_text(study)
    assert launch_here("--config-dir", "stranger", "study=x", "data=synthetic") == 2
    assert "hydra.searchpath" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()


def test_what_is_built_is_what_was_checked(configure, monkeypatch):
    """An interpolation may give something else by then."""
    cfg = configure("+callbacks.x='${oc.decode:${oc.env:NODE}}'")
    monkeypatch.setenv("NODE", "{_target_: lightning.pytorch.callbacks.Timer}")
    check_configuration(cfg)
    assert type(build_part(cfg.callbacks)["x"]).__name__ == "Timer"
    monkeypatch.setenv("NODE", "{_target_: pathlib.Path}")
    with pytest.raises(ConfigError, match=r"pathlib\.Path"):
        build_part(cfg.callbacks)


@pytest.mark.parametrize("node", ["job_logging", "hydra_logging"])
@pytest.mark.parametrize(
    "handler",
    [
        {"()": "os.system"},
        {"class": "os.system"},
        {"class": "logging.os.system"},
        {"class": "logging.config.listen"},
        {"class": "logging.StreamHandler", "stream": "ext://os.environ"},
        {"class": "logging.StreamHandler", "stream": "cfg://handlers"},
        {".": {"()": "os.system"}},
    ],
    ids=str,
)
def test_logging_cannot_name_code_to_run(configure, node, handler):
    cfg = OmegaConf.create({**configure(), "hydra": {node: {"handlers": {"x": handler}}}})
    with pytest.raises(ConfigError, match=rf"hydra\.{node}\.handlers\.x"):
        check_configuration(cfg)


@pytest.mark.parametrize("arguments", [["hydra.searchpath=[pkg://evil]"], ["--config-path", "stranger"]])
def test_configuration_cannot_have_a_module_imported(tmp_path, arguments):
    """A module's code runs when it is imported, and the current folder is on the path of ``python -m``."""
    (tmp_path / "evil").mkdir()
    (tmp_path / "evil" / "__init__.py").write_text("open('ran', 'w').close()")
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "config.yaml").write_text("hydra:\n  searchpath: [pkg://evil]\nseed: nan\n")
    command = [sys.executable, "-m", "fmnist_lit", *arguments, "optimizer.lr=nan"]
    finished = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 2
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.CrossEntropyLoss",
        "torch.optim.SGD",
        "torch.optim.lr_scheduler.StepLR",
        "lightning.pytorch.callbacks.EarlyStopping",
        "lightning.pytorch.loggers.CSVLogger",
        "fmnist_lit.losses.OneHotLoss",
    ],
)
def test_classes_that_train_are_trusted(target):
    require_trusted(("callbacks", "x", "_target_"), target)


@pytest.mark.parametrize(
    "target",
    [
        "torch.nn.crossEntropyLoss",
        "torch.nn.Module",
        "torch.optim.SGD.__init__",
        "xtorch.optim.SGD",
        "torch.optim.SGD\n",
        "torchxoptim.SGD",
        "lightning.pytorch.Trainer",
        "",
        None,
        7,
    ],
)
def test_names_next_to_the_trusted_ones_are_not_trusted(target):
    with pytest.raises(ConfigError, match="_target_"):
        require_trusted(("callbacks", "x", "_target_"), target)


def test_configuration_that_refers_to_itself_is_refused(refused):
    assert "callbacks" in refused("+callbacks.x='${callbacks}'")


@pytest.mark.parametrize("value", ["optimizer.lr=1e-3", "optimizer.lr=1", "model.dropout=0", "trainer.devices=auto"])
def test_right_values_are_accepted(configure, value):
    check_configuration(configure(value))


# What is shipped


def compose(group: str, option: str) -> DictConfig:
    if option in TRACKERS.values():
        pytest.importorskip(option, reason=f"the extra {option} is not installed")
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        small = SMALL if option != "cnn" else [word for word in SMALL if not word.startswith("model.")]
        # nan would be a number
        return hydra.compose("config", [*small, *QUIET, "run_dir=x", f"{group}='{option}'"])


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_shipped_option_passes_the_checks(group, option):
    check_configuration(compose(group, option))


def build(cfg: DictConfig, group: str) -> None:
    """Make what a group of the configuration describes."""
    optimizer = functools.partial(torch.optim.SGD, lr=0.1)
    match group:
        case "data" | "loss":
            instantiate(cfg[group])
        case "model":
            assert instantiate(cfg.model)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
        case "optimizer":
            two_layers = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
            instantiate(cfg.optimizer, _convert_="all")(two_layers.named_parameters())
        case "scheduler":
            scheduler = instantiate({k: v for k, v in cfg.scheduler.items() if k not in ("interval", "monitor")})
            scheduler(optimizer([torch.nn.Parameter(torch.zeros(1))]))
        case "trainer":
            make_trainer(cfg)
        case "logger" | "callbacks":
            for node in cfg[group].values():
                instantiate(node)


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_shipped_option_binds_to_its_target(tmp_path, group, option):
    cfg = compose(group, option)
    cfg.run_dir = str(tmp_path)
    cfg.total_steps = 10
    for part in [group] if group in cfg else ["data", "model", "loss", "optimizer", "scheduler", "trainer"]:
        build(cfg, part)


def test_every_number_shipped_has_a_rule_or_is_any_finite_number():
    shipped = set()
    for group, option in OPTIONS:
        if group == "logger":  # where a tracker may not be installed
            continue
        for path, value in walk(compose(group, option)):
            if path[0] in ("data", "model", "regularization", "optimizer", "scheduler", "trainer", "loss"):
                shipped |= {".".join(path)} if isinstance(value, int | float) else set()
    listed = {key for key in shipped if ".betas." not in key and not re.search(r"\.(hidden_sizes|channels)\.", key)}
    assert listed - RULES.keys() == {"optimizer._partial_", "scheduler._partial_", "data.source._partial_"}
