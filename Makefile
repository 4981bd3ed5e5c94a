.PHONY: test lint train sweep board site bench
test:
	uv run pytest
lint:
	uv run ruff check .
	uv run ruff format --check .
	for platform in linux darwin win32; do uv run mypy --platform $$platform || exit 1; done
	uv run lint-imports
train:
	uv run python -m fmnist_lit
sweep:
	uv run python -m fmnist_lit -m optimizer.lr=1e-3,1e-2,1e-1 data.batch_size=32,64
board:
	uv run tensorboard --logdir outputs
site: # into build/site; mkdocs serve shows it as it is edited
	uv run --group site mkdocs build --strict
bench:
	uv run python scripts/benchmark/epoch.py
