import dataclasses
import importlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from conftest import composed

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "RESULTS.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def make_results() -> ModuleType:
    """The script that writes RESULTS.md."""
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "scripts" / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def peers(monkeypatch) -> ModuleType:
    """The script that trains what other packages have."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "benchmark")
    return importlib.import_module("peers")


def test_results_are_what_the_script_makes_of_the_results_files(make_results):
    assert make_results.render() == RESULTS


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_readme_quotes_the_results(page):
    quoted = re.findall(r"`experiment=(\w+)` \| (\d.*?) %", (ROOT / page).read_text(encoding="utf-8"))
    assert {name for name, _ in quoted} == {"fastest_88", "fastest_90", "best_mlp"}
    for name, accuracy in quoted:
        assert f"| `{name}` | {accuracy} |" in RESULTS
        assert f"Measured: {accuracy} % test accuracy" in (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
@pytest.mark.parametrize("name", ["sklearn_mlp_adam", "xgboost"])
def test_readme_quotes_peers(page, name, make_results):
    runs = json.loads((ROOT / "docs" / "results" / "peers" / f"{name}.json").read_text())["runs"]
    accuracy = make_results.percent([run["test_accuracy"] for run in runs])
    seconds = f"{make_results.mean(runs, 'fit_cpu_seconds'):.0f}"
    assert re.search(rf"\b{accuracy} %\D*\b{seconds}\b", (ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", sorted(ROOT.glob("conf/study/*.yaml")), ids=lambda file: file.stem)
def test_every_study_says_what_came_out(file):
    assert re.search(r"^# Measured\b", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_figures_are_means_and_sample_standard_deviations(make_results, tmp_path):
    made = {"python": "3", "torch": "2", "lightning": "2", "processor": "cpu", "commit": "abc"}
    runs = [
        {
            "seed": seed,
            "dataset": "fashion_mnist",
            "test_accuracy": accuracy,
            "fit_cpu_seconds": 2.0 + seed,
            "epochs": 3,
            "num_threads": 1,
            "provenance": made,
        }
        for seed, accuracy in enumerate((0.90, 0.91, 0.95))
    ]
    result = {"command": "python -m fmnist_lit -m seed=0,1,2", "is_study": False, "jobs": 3, "seconds": 9, "best": ""}
    (tmp_path / "three.json").write_text(json.dumps({**result, "runs": runs}))
    text = make_results.render(tmp_path)
    assert "| `three` | 92.00 ± 2.65 |  | 3 | 3 | 3.0 |" in text
    assert "`python -m fmnist_lit -m seed=0,1,2`" in text
    assert "commit abc" in text


def test_sweep_is_taken_up_from_its_folder(make_results, launch_here, tmp_path):
    small = ("data=synthetic", "data.train_size=200", "data.test_size=100", "data.val_size=50", "num_threads=1")
    sweep = ("-m", "seed=0,1", *small, "model.hidden_sizes=[8]", "trainer.max_epochs=1", "hydra.sweep.dir=seeds")
    assert launch_here(*sweep) == 0
    taken = make_results.take_up(tmp_path / "seeds")
    assert not taken["is_study"]
    assert [run["seed"] for run in taken["runs"]] == [0, 1]
    for run in taken["runs"]:
        written = json.loads((tmp_path / "seeds" / f"seed={run['seed']}" / "results.json").read_text())
        assert {key: written[key] for key in run} == run


def test_peers_stand_among_our_experiments_by_accuracy(make_results, tmp_path):
    made = {"python": "3", "torch": "2", "lightning": "2", "processor": "cpu", "commit": "abc"}
    run = {"dataset": "fashion_mnist", "fit_cpu_seconds": 2.0, "epochs": 1, "num_threads": 1, "provenance": made}
    ours = {"command": "python", "is_study": False, "runs": [{**run, "test_accuracy": 0.89}]}
    other = {**run, "provenance": {**made, "packages": {"forest": "1.0"}}}
    peer = {"command": "python peers.py", "title": "A forest", "settings_of": "its own", "settings": "trees=3"}
    (tmp_path / "fastest_88.json").write_text(json.dumps(ours))
    (tmp_path / "peers").mkdir()
    for name, accuracies in {"small": (0.85,), "large": (0.90, 0.92)}.items():
        runs = [{**other, "test_accuracy": accuracy} for accuracy in accuracies]
        (tmp_path / "peers" / f"{name}.json").write_text(json.dumps({**peer, "runs": runs}))
    text = make_results.render(tmp_path)
    experiment = "| `experiment=fastest_88`, 784-512-512-10 | [fastest_88.yaml](conf/experiment/fastest_88.yaml)"
    small = text.index("| A forest | its own | 85.00 | 1 | 2.0 |")
    fastest = text.index(f"{experiment} | 89.00 | 1 | 2.0 |")
    large = text.index("| A forest | its own | 91.00 ± 1.41 | 2 | 2.0 |")
    assert small < fastest < large
    assert "Python 3, forest 1.0; commit abc  \n  trees=3" in text


@pytest.mark.parametrize("file", sorted(ROOT.glob("docs/results/peers/*.json")), ids=lambda file: file.stem)
def test_results_of_peers_are_of_the_settings_in_the_script(file, peers):
    kept = json.loads(file.read_text(encoding="utf-8"))
    peer = peers.PEERS[file.stem]
    assert {**peers.result(file.stem, peer, []), "runs": kept["runs"]} == kept
    assert [run["seed"] for run in kept["runs"]] == list(range(peer.num_seeds))
    assert {(run["dataset"], run["train_size"]) for run in kept["runs"]} == {("fashion_mnist", 60_000)}


@pytest.fixture
def recipes(monkeypatch) -> ModuleType:
    """The script that tries what may be better than best_mlp."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "benchmark")
    return importlib.import_module("recipes")


@pytest.mark.parametrize("file", sorted(ROOT.glob("docs/results/recipes/*.json")), ids=lambda file: file.stem)
def test_what_was_tried_is_of_the_settings_in_the_script(file, recipes):
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["settings"] == dataclasses.asdict(recipes.RECIPES[kept["recipe"]])
    assert file.stem == f"{kept['recipe']}_{kept['held_out']}_{kept['split']}"


def test_every_recipe_changes_the_training_and_is_told(recipes, monkeypatch, tmp_path, capsys, make_results):
    synthetic = recipes.load_images("synthetic", "", 0)
    small = SimpleNamespace(train=synthetic.train[:800])
    monkeypatch.setattr(recipes, "load_images", lambda *_: small)
    weights: dict[recipes.Recipe, float] = {}
    for recipe in {dataclasses.replace(recipe, epochs=2) for recipe in recipes.RECIPES.values()}:
        model = recipes.train(recipe, recipes.Held(0, 200, recipe), seed=0)
        weights[recipe] = sum(p.detach().double().sum().item() for p in model.parameters())
    assert len(set(weights.values())) == len(weights)
    tried = ["before", "mixup", "--held-out", "200", "--epochs", "1", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["recipes.py", *tried])
    recipes.main()
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(",")[0] for line in told] == ["before", "mixup"]
    table = make_results.recipes([json.loads(file.read_text()) for file in tmp_path.glob("*.json")])
    assert "| `mixup` | mixup=0.2 | 200 | 1 |" in table


def test_best_mlp_reaches_what_the_results_say_it_does(make_results):
    runs = json.loads((ROOT / "docs" / "results" / "best_mlp.json").read_text())["runs"]
    assert len(runs) >= 5
    assert make_results.mean(runs, "test_accuracy") >= 0.922
    assert make_results.mean(runs, "test_accuracy_flip_average") >= 0.925
    assert make_results.mean(runs, "fit_cpu_seconds") <= 900
    assert {run["num_parameters"] for run in runs} == {669_706}


def test_best_mlp_is_the_recipe_that_was_tried(recipes):
    cfg, recipe = composed("experiment=best_mlp"), recipes.RECIPES["best_mlp"]
    assert cfg.trainer.max_epochs == recipe.epochs
    assert (cfg.optimizer.weight_decay, cfg.scheduler.power) == (recipe.weight_decay, recipe.power)
    assert (cfg.callbacks.ema.decay, cfg.data.batch_size) == (recipe.ema_decay, recipes.BATCH_SIZE)


MAJORITY = """
from collections import Counter

class Majority:
    def __init__(self, random_state, bias):
        self.random_state, self.bias = random_state, bias
    def fit(self, images, labels):
        assert images.shape == (200, 784) and images.max() <= 1
        self.label = Counter(labels.tolist()).most_common(1)[0][0]
    def predict(self, images):
        return images[:, 0] * 0 + self.label
"""


def test_peer_trains_in_a_process_of_its_own_and_one_without_its_package_is_left_out(
    peers, monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)  # where there is no real data
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "majority.py").write_text(MAJORITY)
    here = peers.Peer("Majority", "mine", ("torch",), {"bias": 0}, "majority.Majority")
    monkeypatch.setattr(peers, "PEERS", {"gone": peers.Peer("Gone", "none", ("no-such-package",), {}), "here": here})
    monkeypatch.setattr(sys, "argv", ["peers.py", "--num-samples", "200", "--output", "kept"])
    peers.main()
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "skipping gone: no package no-such-package"
    assert [file.name for file in (tmp_path / "kept").iterdir()] == ["here.json"]
    kept = json.loads((tmp_path / "kept" / "here.json").read_text())
    assert (kept["command"], kept["settings"]) == ("python scripts/benchmark/peers.py here", "bias=0")
    (run,) = kept["runs"]
    assert (run["seed"], run["dataset"], run["train_size"], run["num_threads"]) == (0, "synthetic", 200, 1)
    assert run["test_accuracy"] == pytest.approx(0.1, abs=0.02)
    assert run["provenance"]["packages"].keys() == {"torch"}


def test_loop_is_a_peer_by_its_last_epoch(peers):
    def loop(setting, lap):
        for epoch in range(100):
            lap(epoch / 10)

    peer = peers.Peer("Loop", "its own", (), {"epochs": 3}, loop=loop)
    accuracy, seconds = peers.run_loop(peer, peers.Setting())
    assert accuracy == 0.3
    assert 0 <= seconds < 1
