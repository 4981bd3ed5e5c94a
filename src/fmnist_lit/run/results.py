"""The figures of a run as ``results.json`` names them."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fmnist_lit.config.criterion import Criterion


def figures_by_name(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics by TensorBoard tag as ``results.json`` names them; null where nothing was evaluated."""
    kinds = ("accuracy", "loss")
    named = {f"{split}_{kind}": metrics.get(f"{kind}/{split}") for split in ("test", "val", "train") for kind in kinds}
    for split in ("test", "val"):
        for kind in kinds:
            if (tag := f"{kind}/{split}_flip_average") in metrics:
                named[f"{split}_{kind}_flip_average"] = metrics[tag]
    return named


def selected_by(criterion: Criterion, metrics: Mapping[str, float]) -> dict[str, Any]:
    """By what the best was chosen, and the value of that; null where there is none."""
    value = metrics.get(criterion.metric, math.nan)
    return {**asdict(criterion), "value": value if math.isfinite(value) else None}
