"""What a run sets for the whole of its process: threads, random streams, and what Lightning may say."""

import logging
import os
import re
import warnings

import numpy as np
import torch
from omegaconf import DictConfig

from fmnist_lit.processes.ranks import num_processes, outside

NOTES = re.compile(
    r"(GPU|TPU|HPU|IPU) available|\W*Tip:|Restor|`?Trainer|You are using|LOCAL_RANK|Initializing distributed|-+\s"
    r"|distributed_backend|All distributed|Using (\d+-?bit|bfloat16|16bit)|Seed set|Running in `fast_dev_run`"
)
DEFAULT_THREADS = torch.get_num_threads()  # a sweep's jobs may follow one another in this process


def set_num_threads(cfg: DictConfig) -> None:
    """As many threads as asked for, else torch's own choice, which processes of one run on one machine share."""
    processes = num_processes(cfg)
    share = DEFAULT_THREADS if "OMP_NUM_THREADS" in os.environ else max(1, DEFAULT_THREADS // processes)
    torch.set_num_threads(cfg.num_threads or share)
    if processes > 1 or outside() is not None:
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # or Lightning would set it to its own choice


def seed_rank(seed: int, rank: int) -> None:
    """Let the ranks drop out different units, each reproducibly; rank 0 goes on from where it is."""
    os.environ.pop("PL_GLOBAL_SEED", None)  # from it Lightning would seed all ranks alike when they meet
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def quieten_lightning() -> None:
    """Keep Lightning's advertisements and progress notes off the screen; its warnings, and what is asked for, stay."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()  # what it says belongs into train.log, too
        logger.propagate = True
    for name in ("lightning.pytorch.trainer", "lightning.pytorch.accelerators", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(is_no_note)  # the same function is added once only
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a login node of Slurm
    warnings.filterwarnings("ignore", message="The ``compute`` method of metric")  # a rank may have no image
    warnings.filterwarnings("ignore", message="Total length of `list`")  # no validation was asked for
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")  # they are of all ranks


def is_no_note(record: logging.LogRecord) -> bool:
    """Whether a message is none of those that Lightning has for every run."""
    return record.levelno > logging.INFO or NOTES.match(record.getMessage()) is None
