"""Jobs that optuna samples one batch after the other, by what the earlier ones came to; fmnist_lit.sweep.search."""

import sys
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.fmnist_lit_sweeper.grid_sweeper import GridSweeper


class SearchSweeper(GridSweeper):
    """Launches the jobs of a search, a batch at a time."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(max_batch_size=None)  # how many are sampled together is for the search to say

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run them; ``sweep.json`` has been written from ``arguments``."""
        from fmnist_lit.config import ConfigError
        from fmnist_lit.sweep.search import Search

        sweep_dir = self.begin()
        assert self.config is not None
        try:
            search = Search(sweep_dir, self.config)
            return self.launch(search.space.settings, search.batches())
        except ConfigError as error:  # Hydra would show where it was raised
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(2) from error
