"""What a person at the keyboard reads when something cannot be done."""

import difflib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from fmnist_lit.config.arguments import trainer_options
from fmnist_lit.config.check import unknown_key
from fmnist_lit.config.rules import RULES

# Hydra's plugins that are extras in pyproject.toml, and what they have to be told
EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=submitit_local": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/launcher=ray": "ray",
}
GONE = {  # options of earlier versions, and what to type now
    "hydra/sweeper=optuna": "hydra/sweeper=search, which goes on and prunes; pip install 'fmnist_lit[search]'",
}


def explain_hydra_error(error: Exception, options_of: Callable[[str], list[str]]) -> str:
    """Hydra's message in a line, with the nearest known key or the options there are.

    Args:
        error: what Hydra raised.
        options_of: tells the names of a group's files.
    """
    text = str(error).strip()
    if match := re.search(r"Could not override '([^']+)'", text):
        group, _, name = match[1].partition(".")
        optional = group == "trainer" and name in trainer_options()
        if match[1] in RULES and not optional:
            return f"{match[1]}: the chosen {group} has no such key"
        if optional or group in ("callbacks", "logger"):
            return f"{match[1]}: not in the configuration; +{match[1]}=… adds it"
        return unknown_key(match[1])
    if match := re.search(r"Could not find '([^']+)'\s+Available options in '([^']+)':((?:\n\t\S+)+)", text):
        return no_such_option(match[2], match[1].removeprefix(f"{match[2]}/"), match[3].split())
    if match := re.search(r"Could not load '([^']+)/([^'/]+)'", text):  # one of a list
        return no_such_option(match[1], match[2], options_of(match[1]))
    if match := re.search(r"Error resolving interpolation '\S+', possible interpolation keys: (.*)", text):
        left_out = [group for group in ("debug", "optimizer") if group not in match[1].split(", ")]  # conf/config.yaml
        if left_out:
            return f"~{left_out[0]}: cannot be left out"
    whole = f"{text} ({error.__cause__})" if error.__cause__ else text
    return " ".join(whole.split())[:300]


def no_such_option(group: str, option: str, options: Sequence[str]) -> str:
    """An error text for an option that a group does not have."""
    if extra := EXTRAS.get(f"{group}={option}"):
        return f"{group}={option}: is not installed; pip install 'fmnist_lit[{extra}]'"
    if now := GONE.get(f"{group}={option}"):
        return f"{group}={option}: has become {now}"
    nearest = difflib.get_close_matches(option, options, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else "--config-dir names a folder of your own configurations"
    return f"{group}={option}: must be one of {', '.join(options)}; {hint}"


def already_written(key: str, folder: Path) -> str:
    """An error text for the folder of a run that runs."""
    return f"{key}={folder}: another run is writing to it; wait for it or stop it"


def already_led(sweep_dir: Path) -> str:
    """An error text for a sweep that runs."""
    return f"hydra.sweep.dir={sweep_dir}: a sweep, or a job that one left, is running in it; wait for it or stop it"
