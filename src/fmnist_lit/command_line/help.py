"""What ``--help`` prints: the groups with their options, the keys that people set most, and examples."""

from collections.abc import Iterable
from pathlib import Path

HELP = """\
fmnist_lit trains an MLP on Fashion-MNIST with Lightning and Hydra.

python -m fmnist_lit [group=option] [key=value] …

Groups
{groups}

Main keys (--cfg job shows all of them)
  optimizer.lr=0.01              learning rate; momentum and weight_decay where the optimiser has them
  data.batch_size=64             also data.val_size, data.shuffle, data.normalize, data.data_dir
  model.hidden_sizes=[512,512]   also model.activation, model.dropout, model.batch_norm
  trainer.max_epochs=10          also trainer.accelerator, trainer.devices, trainer.precision
  regularization.l1=0            L1 penalty on the weights
  select.metric=accuracy/val     what the best is, with select.mode=max
  seed=0  num_threads=null  ckpt_path=null  init_from=null  hydra.run.dir=FOLDER  tags=[]  note=null

Examples
  python -m fmnist_lit                                          the tutorial's settings
  python -m fmnist_lit experiment=tutorial                      the tutorial itself, bit for bit
  python -m fmnist_lit optimizer=adam loss=label_smoothing trainer.max_epochs=5
  python -m fmnist_lit -m optimizer.lr=1e-3,1e-2,1e-1 data.batch_size=32,64
  python -m fmnist_lit callbacks=[default,early_stopping]       options of callbacks and logger may be several
  python -m fmnist_lit -m hydra/launcher=stacked seed=0,1,2,3   jobs that differ in numbers, as one batched model
  python -m fmnist_lit.find_lr optimizer=adam                   suggests a learning rate
  python -m fmnist_lit debug=overfit                            is there a mistake in it? also one_batch, nan, profile
  python -m fmnist_lit ckpt_path=latest                         resume; or ckpt_path=outputs/runs/FOLDER
  tensorboard --logdir outputs                                  look at the curves

--cfg job prints the whole configuration, --hydra-help Hydra's own flags. --config-dir FOLDER adds configurations of
your own, --trust PACKAGE lets them name classes of that package (docs/your_own.md)."""


def help_text(config_dirs: Iterable[Path]) -> str:
    """The text, with the options in these folders; Hydra's own list of them takes half a second."""
    options: dict[str, set[str]] = {}
    for folder in config_dirs:
        for file in folder.glob("*/*.yaml"):
            options.setdefault(file.parent.name, set()).add(file.stem)
    return HELP.format(groups="\n".join(f"  {group}: {', '.join(sorted(options[group]))}" for group in sorted(options)))
