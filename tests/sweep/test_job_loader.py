import pickle
from collections.abc import Iterator
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.sweep.job_loader import JobLoader

SHARED = ["hydra.sweep.dir=here", "hydra.job.config.override_dirname.exclude_keys=[note]"]
JOBS = [
    ["optimizer=adam", "optimizer.lr=0.1", "seed=1", "hydra.sweep.subdir=a"],
    ["optimizer=adam", "optimizer.lr=0.2", "seed=2", "hydra.sweep.subdir='b,c=d'"],
    ["optimizer=sgd", "optimizer.lr=0.2", "seed=2", "hydra.sweep.subdir=c"],
    ["optimizer=adam", "optimizer.lr=0.3", "seed=3", "ckpt_path='/x/last.ckpt'", "hydra.sweep.subdir=d"],
    ["optimizer=adam", "optimizer.lr=0.4", "seed=4", "ckpt_path=null", "hydra.sweep.subdir=e"],
    ["optimizer=adam", "optimizer.lr=${seed}", "seed=5", "hydra.sweep.subdir=f"],
    ["optimizer=adam", "model.hidden_sizes=[8,8]", "note='a, b'", "hydra.sweep.subdir=g"],
    ["optimizer=adam", "model.hidden_sizes=[]", "note=null", "hydra.sweep.subdir=h"],
    ["optimizer=adam", "optimizer.betas=[0.5,0.9]", "+trainer.max_time=00:01:00:00", "hydra.sweep.subdir=i"],
    ["optimizer=adam", "optimizer.betas=[0.6,0.9]", "+trainer.max_time=00:02:00:00", "hydra.sweep.subdir=j"],
    ["data.augmentation={flip:true,shift:2}", "~callbacks.progress_bar", "hydra.sweep.subdir=k"],
    ["data.augmentation={flip:false}", "~callbacks.progress_bar", "hydra.sweep.subdir=l"],
    ["callbacks=[default,ema]", "callbacks.ema.decay=0.5", "seed=1", "hydra.sweep.subdir=m"],
    ["callbacks=[default,ema]", "callbacks.ema.decay=0.6", "seed=1", "hydra.sweep.subdir=n"],
]


@pytest.fixture
def loader() -> Iterator[Any]:
    """Hydra's own, counting what it composes."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield GlobalHydra.instance().config_loader()


@pytest.fixture
def master(loader):
    return loader.load_configuration("config", overrides=SHARED, run_mode=RunMode.MULTIRUN)


def test_jobs_have_the_configurations_that_hydra_gives_them(loader, master):
    jobs = JobLoader(loader)
    for job in [*JOBS, *JOBS[::-1]]:
        own, hydras = jobs.load_sweep_config(master, job), loader.load_sweep_config(master, job)
        assert OmegaConf.to_yaml(own) == OmegaConf.to_yaml(hydras)
        own.hydra.job.num = 7  # as a launcher does
        own.seed = 100


def test_jobs_that_choose_the_same_files_are_composed_once(loader, master, monkeypatch):
    composed, compose = [], loader.load_sweep_config
    monkeypatch.setattr(loader, "load_sweep_config", lambda *words: composed.append(words) or compose(*words))
    jobs = JobLoader(loader)
    for number in range(10):
        for optimizer in ("adam", "sgd"):
            jobs.load_sweep_config(master, [f"optimizer={optimizer}", f"seed={number}", f"hydra.sweep.subdir={number}"])
    assert len(composed) == 2


def test_a_value_that_does_not_fit_is_for_hydra_to_refuse(loader, master):
    jobs = JobLoader(loader)
    jobs.load_sweep_config(master, ["seed=1"])
    for word in ("seed.of=2", "sead=2"):
        with pytest.raises(hydra.errors.ConfigCompositionException):
            jobs.load_sweep_config(master, [word])


def test_a_worker_has_a_memory_of_its_own():
    jobs = JobLoader("anything that can be sent")
    jobs.composed = {"sent": "too"}
    there = pickle.loads(pickle.dumps(jobs))
    assert there.composed == {}
    assert there.upper() == "ANYTHING THAT CAN BE SENT"  # what it has not is Hydra's own
