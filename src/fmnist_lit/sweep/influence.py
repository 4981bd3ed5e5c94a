"""What mattered in a sweep, as charts: which parameter, which values together, and what the training time bought."""

import importlib.util
import math
import random
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.collections import LineCollection

from fmnist_lit.report.charts import BEST, COLOURS, Chart, chart_style
from fmnist_lit.run.study import DIRECTIONS
from fmnist_lit.sweep.charts import (
    MARKERS,
    RING,
    figure_and_axes,
    groups_by,
    heading,
    is_by_error,
    legend_below,
    level,
    level_label,
    log_error,
    scale_levels,
    settings_label,
    short_key,
    titled_chart,
    truncate,
)
from fmnist_lit.sweep.jobs import CURVES
from fmnist_lit.sweep.table import Group, RankedGroup, SweepTable
from fmnist_lit.sweep.values import UNKNOWN, identity, show_value

FEWEST = 20  # configurations of which it can be told what mattered
RESAMPLED = 20  # times, for the spread of what mattered
MOST_DRAWN = 300  # lines; of more, the best
WITHIN = 1.0  # percentage points of the best, or percent of another figure: a target whose time is told


def draw_influence(table: SweepTable) -> list[Chart]:
    """The charts that a sweep gives; none where too little is ranked."""
    with chart_style():
        return list(charts_of_influence(table))


def charts_of_influence(table: SweepTable) -> Iterator[Chart]:
    """Draw what can be: the importance needs optuna, and all but the time two parameters."""
    several = len(table.numbers) + len(table.categories) > 1
    if several and len(table.ranked) >= FEWEST and importlib.util.find_spec("optuna"):
        yield importance(table)
    if several and len(table.ranked) >= FEWEST:
        yield parallel_coordinates(table)
    if len(table.ranked) > 1 and all(training_seconds(group) for group in table.ranked):
        yield against_time(table)


def importance(table: SweepTable) -> Chart:
    """How much each parameter decides about being among the best tenth, by PED-ANOVA, with its spread."""
    shares = importances(table)
    keys = sorted(shares, key=lambda key: statistics.fmean(shares[key]))
    fig, ax = figure_and_axes(height=1.7 + 0.45 * len(keys))
    middles = [statistics.fmean(shares[key]) for key in keys]
    low, high = ([float(np.quantile(shares[key], q)) for key in keys] for q in (0.05, 0.95))
    below = [max(0.0, middle - end) for middle, end in zip(middles, low, strict=True)]
    above = [max(0.0, end - middle) for middle, end in zip(middles, high, strict=True)]
    ax.barh(range(len(keys)), middles, xerr=[below, above], color=COLOURS[0], capsize=4)
    ax.set_yticks(range(len(keys)), [truncate(key, 28) for key in keys])
    ax.tick_params(axis="y", length=0)
    ax.grid(False, axis="y")
    ax.set_xlim(0, 1)
    ax.set_xlabel("share of what tells the best tenth from all (PED-ANOVA)")
    note = f"bars from 5 to 95 % of {RESAMPLED} resamplings of {len(table.ranked)} configurations"
    return titled_chart(fig, table, "importance", "What mattered", None, note)


def importances(table: SweepTable) -> dict[str, list[float]]:
    """The shares of the parameters, which are 1 together, in resamplings of the ranked configurations."""
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    keys = [key for key in (*table.numbers, *table.categories) if known_to_all(table.ranked, key)]
    trials, chance = trials_of(table, keys), random.Random(0)
    shares: dict[str, list[float]] = {key: [] for key in keys}
    for _ in range(RESAMPLED):
        study = optuna.create_study(direction=DIRECTIONS[table.criterion.mode])
        study.add_trials(chance.choices(trials, k=len(trials)))
        found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
        for key in keys:
            shares[key].append(float(found.get(key, 0.0)))
    return shares


def trials_of(table: SweepTable, keys: Sequence[str]) -> list[Any]:
    """The ranked configurations as optuna's trials."""
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
    from optuna.trial import create_trial

    distributions: dict[str, BaseDistribution] = {}
    measured = [key for key in keys if key in table.numbers and 2 * len(table.values(key)) > len(table.ranked)]
    for key in keys:
        values = table.values(key)
        if key in measured:  # a density through the few values of a grid has its own ideas of what is between them
            distributions[key] = FloatDistribution(values[0], values[-1], log=is_wide(values))
        else:
            distributions[key] = CategoricalDistribution(list(map(show_value, values)))
    return [
        create_trial(
            params={
                key: float(group.settings[key]) if key in measured else show_value(group.settings[key]) for key in keys
            },
            distributions=distributions,
            value=group.value,
        )
        for group in table.ranked
    ]


def known_to_all(groups: Sequence[Group], key: str) -> bool:
    """Whether each of the configurations says what a parameter was."""
    return all(group.settings[key] is not UNKNOWN for group in groups)


def is_wide(values: Sequence[float]) -> bool:
    """Whether sorted values are drawn, and compared, by their logarithm."""
    return values[0] > 0 and values[-1] >= 10 * values[0]


def parallel_coordinates(table: SweepTable) -> Chart:
    """A line a configuration through its values and its figure, the better the brighter, the best in front."""
    keys = [key for key in (*table.categories, *table.numbers) if known_to_all(table.ranked, key)]
    fig, ax = figure_and_axes(height=4.8)
    places = {key: places_of(table, key) for key in keys}
    drawn = table.ranked[:MOST_DRAWN]
    levels = np.array([level(group) for group in drawn])
    ends = spread(level_heights(table, levels))
    lines = [
        [
            *((x, places[key][identity(group.settings[key])]) for x, key in enumerate(keys)),
            (len(keys), end),
        ]
        for group, end in zip(drawn, ends, strict=True)
    ]
    colours = matplotlib.colormaps["viridis"](ends)
    ax.add_collection(LineCollection(lines[:0:-1], colors=colours[:0:-1], linewidths=0.9, alpha=0.7))
    ax.plot(*zip(*lines[0], strict=True), color=BEST, lw=2.6, label=f"best: {level_label(drawn[0])}")
    for x, key in enumerate(keys):
        values = table.values(key)
        kept = values if len(values) <= 8 else [values[round(i * (len(values) - 1) / 4)] for i in range(5)]
        for value in kept:
            text = truncate(f"{value:.3g}" if kept is not values and key in table.numbers else show_value(value), 14)
            ax.annotate(text, (x, places[key][identity(value)]), (4, 0), textcoords="offset points", fontsize=8.5)
    for rank in sorted({0, len(drawn) // 2, len(drawn) - 1}):
        ax.annotate(
            level_label(drawn[rank]), (len(keys), ends[rank]), (5, -3), textcoords="offset points", fontsize=8.5
        )
    ax.set_xticks(range(len(keys) + 1), [*(truncate(short_key(table, key), 16) for key in keys), "figure"])
    ax.set_yticks([])
    ax.grid(True, axis="x", alpha=1)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(-0.1, len(keys) + 0.45)
    ax.set_ylim(-0.04, 1.04)
    legend_below(fig, ax)
    note = f"the best {MOST_DRAWN} of {len(table.ranked)}" if len(table.ranked) > MOST_DRAWN else "a line each"
    return titled_chart(fig, table, "parallel", f"{heading(table.criterion)} by all that varied", None, note)


def level_heights(table: SweepTable, levels: Any) -> Any:
    """Figures as heights, the best the highest, by the logarithm of the error where others are drawn so."""
    if is_by_error(table.criterion, float(levels.min()), float(levels.max())):
        return log_error(levels)
    return levels if table.criterion.mode == "max" else -levels


def spread(values: Any) -> Any:
    """Numbers moved to 0 to 1."""
    low, high = float(np.min(values)), float(np.max(values))
    return (np.asarray(values) - low) / ((high - low) or 1.0)


def places_of(table: SweepTable, key: str) -> Mapping[Any, float]:
    """Where on its axis, from 0 to 1, each value of a parameter is."""
    values = table.values(key)
    numbers: Sequence[float] = range(len(values))
    if key in table.numbers:
        numbers = [math.log(value) for value in values] if is_wide(values) else values
    return {identity(value): float(place) for value, place in zip(values, spread(numbers), strict=True)}


def training_seconds(group: Group) -> float:
    """How long the training of a configuration took, the mean over its seeds."""
    return statistics.fmean([sum(job.epoch_seconds.values()) for job in group.counted] or [0.0])


def against_time(table: SweepTable) -> Chart:
    """The figure that ranks against the seconds of training, with those that nothing quicker surpasses."""
    fig, ax = figure_and_axes(height=4.6)
    by = table.categories[:1]
    if len(groups_by(table, by)) > len(COLOURS):
        by = []
    for index, (name, groups) in enumerate(groups_by(table, by).items()):
        ranked = [group for group in groups if isinstance(group, RankedGroup)]
        seconds = list(map(training_seconds, ranked))
        colour, marker = COLOURS[index], MARKERS[index % len(MARKERS)]
        ax.plot(seconds, list(map(level, ranked)), marker, color=colour, ms=5, alpha=0.8, label=name or None)
    front = pareto_front(table)
    ax.step(
        *zip(*((training_seconds(group), level(group)) for group in front), strict=True),
        where="post",
        color=BEST,
        lw=1.6,
        label="no quicker one is better",
    )
    best = table.ranked[0]
    name = truncate(settings_label(table, best, table.parameters), 50)
    ax.plot(training_seconds(best), level(best), **RING, label=f"best: {name}")
    if told := time_to_target(table):
        ax.plot([], [], " ", label=told)
    every = sorted(training_seconds(group) for group in table.ranked)
    if every[-1] >= 10 * every[0]:
        ax.set_xscale("log")
    ax.set_xlabel("seconds of training, as measured there and then")
    scale_levels(ax, table.criterion)
    legend_below(fig, ax)
    title = f"{heading(table.criterion)} against training time"
    return titled_chart(fig, table, "training_time", title, None)


def pareto_front(table: SweepTable) -> list[RankedGroup]:
    """The configurations than which none is both quicker and better, the quickest first."""
    front: list[RankedGroup] = []
    for group in sorted(table.ranked, key=lambda group: (training_seconds(group), table.criterion.cost(group.value))):
        if not front or table.criterion.cost(group.value) < table.criterion.cost(front[-1].value):
            front.append(group)
    return front


def time_to_target(table: SweepTable) -> str:
    """Which configuration was the first to come near the best, and when; empty where that is not known."""
    criterion, best = table.criterion, table.ranked[0]
    near = WITHIN / 100 if criterion.is_share else abs(best.value) * WITHIN / 100
    target = best.value - near if criterion.mode == "max" else best.value + near
    if criterion.column not in CURVES:
        return ""
    times: list[tuple[float, RankedGroup]] = []
    for group, job in ((ranked, job) for ranked in table.ranked for job in ranked.counted):
        reached = [epoch for epoch, value in job.curve.items() if criterion.cost(value) <= criterion.cost(target)]
        if reached:
            times.append((sum(s for epoch, s in job.epoch_seconds.items() if epoch <= min(reached)), group))
    if not times:
        return ""
    seconds, group = min(times, key=lambda pair: pair[0])
    named = settings_label(table, group, table.parameters)
    return f"{criterion.shown(target)} first reached by {named} in {seconds:.3g} s"
