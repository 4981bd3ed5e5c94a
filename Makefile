.PHONY: help test coverage lint train sweep board site bench dist try-dist
help: ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|'
test: ## the tests
	uv run pytest
coverage: ## the tests, and how much of the code they run; fails below the floor
	uv run --group coverage pytest --cov --cov-report=term:skip-covered
lint: ## style, types as on the three systems, import contracts
	uv run ruff check .
	uv run ruff format --check .
	for platform in linux darwin win32; do uv run mypy --platform $$platform || exit 1; done
	uv run lint-imports
train: ## a run with the tutorial's settings
	uv run python -m fmnist_lit
sweep: ## six runs
	uv run python -m fmnist_lit -m optimizer.lr=1e-3,1e-2,1e-1 data.batch_size=32,64
board: ## their curves
	uv run tensorboard --logdir outputs
site: ## the documents as pages, in build/site; mkdocs serve shows them as they are edited
	uv run --group site mkdocs build --strict
bench: ## what an epoch costs
	uv run python scripts/benchmark/epoch.py
dist: ## sdist and wheel, in dist/; built twice, or they could not be checked by others
	rm -rf dist build/again
	uv build --quiet --out-dir dist
	uv build --quiet --out-dir build/again
	diff -r dist build/again
	uv run --isolated --only-group release twine check --strict dist/*.whl dist/*.tar.gz
try-dist: ## the wheel in an environment of its own: a run, and the run evaluated
	rm -rf build/empty && uv venv --quiet build/empty
	uv pip install --quiet --python build/empty dist/*.whl
	cd build/empty && bin/python -m fmnist_lit data=synthetic data.train_size=2000 trainer.max_epochs=1 hydra.run.dir=run
	cd build/empty && bin/python -m fmnist_lit.evaluate run
