import pytest

from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import parse
from fmnist_lit.sweep.space import SearchSpace

WHEN = (
    "optimizer=adam optimizer.lr=tag(log,interval(1e-5,1e-2))",
    "optimizer=sgd,sgd_momentum optimizer.lr=tag(log,interval(1e-2,1)) data.batch_size=64",
    "data.batch_size=64 model.dropout=0.1,0.2",
)


def space(*words: str, when: tuple[str, ...] = ()) -> SearchSpace:
    return SearchSpace.of(parse(words), when)


@pytest.mark.parametrize(
    ("word", "ends", "step", "is_log"),
    [
        ("optimizer.lr=interval(0.1,1)", (0.1, 1.0), None, False),
        ("optimizer.lr=tag(log,interval(1e-4,1))", (1e-4, 1.0), None, True),
        ("data.batch_size=int(interval(16,512))", (16, 512), 1, False),
        ("data.batch_size=tag(log,int(interval(16,512)))", (16, 512), 1, True),
        ("data.batch_size=range(16,65,16)", (16, 64), 16, False),
        ("optimizer.lr=range(0.0,1.0,0.25)", (0.0, 0.75), 0.25, False),
        ("optimizer.lr=0.1,1e-2", ("0.1", "0.01"), None, False),
        ("optimizer=choice(sgd,adam)", ("sgd", "adam"), None, False),
        ("callbacks=default,[default,ema]", ("default", "[default,ema]"), None, False),
    ],
)
def test_what_an_override_samples(word, ends, step, is_log):
    (parameter,) = space(word).parameters
    assert (parameter.ends, parameter.step, parameter.is_log) == (ends, step, is_log)
    assert parameter.line(ends[0]).startswith(word.partition("=")[0] + "=")


def test_a_conditional_range_takes_the_place_of_one_for_all():
    searched = space("optimizer=sgd,adam,adagrad", "optimizer.lr=interval(0.5,0.6)", "seed=3", when=WHEN)
    drawn = {}
    for optimizer in ("sgd", "adam", "adagrad"):
        lines = searched.draw(lambda p, chosen=optimizer: chosen if p.name == "optimizer" else p.ends[-1])
        drawn[optimizer] = lines
        values = searched.values_in(lines)
        assert searched.draw(lambda p, values=values: values[p.name]) == lines
    assert drawn == {
        "sgd": ["seed=3", "optimizer=sgd", "data.batch_size=64", "optimizer.lr=1.0", "model.dropout=0.2"],
        "adam": ["seed=3", "optimizer=adam", "optimizer.lr=0.01"],
        "adagrad": ["seed=3", "optimizer=adagrad", "optimizer.lr=0.6"],
    }
    assert searched.keys == ["optimizer", "optimizer.lr", "data.batch_size", "model.dropout"]


def test_what_is_checked_has_each_choice_and_each_end_in_it():
    checked = list(space("optimizer=sgd,adam", when=WHEN).corners())
    lines = {line for job in checked for line in job}
    assert {"optimizer.lr=1e-05", "optimizer.lr=0.01", "optimizer.lr=1.0", "model.dropout=0.1"} <= lines
    assert not any({"optimizer=adam", "data.batch_size=64"} <= set(job) for job in checked)


@pytest.mark.parametrize(
    ("low", "high", "value", "rounded"),
    [(1e-4, 1, 0.00012345678, 0.00012346), (0, 1, 0.7234567, 0.72346), (1.0, 1.001, 1.000123456, 1.00012346)],
)
def test_a_sampled_number_is_short_enough_to_name_a_folder(low, high, value, rounded):
    (parameter,) = space(f"optimizer.lr=interval({low},{high})").parameters
    assert parameter.rounded(value) == rounded
    assert parameter.rounded(high + 1.0) == high


@pytest.mark.parametrize(
    ("words", "when", "told"),
    [
        (["optimizer.lr=interval(1,0.1)"], (), "optimizer.lr=interval(1,0.1): must be from a lower to a higher number"),
        (["optimizer.lr=tag(log,interval(0,1))"], (), "has no logarithm at 0"),
        (["optimizer.lr=tag(log,choice(0.1,1))"], (), "log is for intervals"),
        (["optimizer.lr=tag(square,interval(0,1))"], (), "tag square is not known"),
        (["optimizer.lr=0.1"], (), "nothing to sample"),
        (["seed=0,1"], ("optimizer=sgd",), "must be a condition and what holds under it"),
        (["seed=0,1"], ("optimizer=sgd optimizer.lr=0.1,0.2",), "optimizer=… can be no condition"),
        (["seed=0,1"], ("seed=1 hydra.job.name=x",), "hydra.job.name is for the whole sweep"),
        (["seed=0,1"], ("seed=1 seed=range(3)", "seed=1 seed=range(4)"), "seed if seed=1 is given twice"),
    ],
)
def test_what_cannot_be_sampled_is_named(words, when, told):
    with pytest.raises(ConfigError) as error:
        space(*words, when=when)
    assert told in str(error.value)
