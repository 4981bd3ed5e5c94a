"""What of Lightning's Trainer and callbacks a run cannot have, and why; all else works as in plain Lightning."""

REFUSED_TRAINER_OPTIONS = {
    "logger": "the group logger chooses them: logger=csv, +logger.NAME._target_=…",
    "callbacks": "the group callbacks chooses them: +callbacks.NAME._target_=…",
    "plugins": "a run brings its own, for durable checkpoints and its processes",
    "default_root_dir": "hydra.run.dir names the folder",
    "enable_checkpointing": "~callbacks.checkpoint leaves checkpoints out",
    "enable_progress_bar": "~callbacks.progress_bar leaves it out",
    "barebones": "it would leave out the figures; ~logger.NAME and ~callbacks.NAME leave out single ones",
    "limit_predict_batches": "a run predicts nothing",
    "use_distributed_sampler": "ranks share the images without a sampler",
    "model_registry": "nothing is uploaded",
}
REFUSED_CALLBACKS = {
    "BackboneFinetuning": "it needs a model with a backbone of its own",
    "BaseFinetuning": "it is a base class; its subclasses say what to freeze",
    "BasePredictionWriter": "a run predicts nothing",
    "LambdaCallback": "it takes functions, which a configuration cannot give",
    "ThroughputMonitor": "it takes a function, which a configuration cannot give",
    "ProgressBar": "it is a base class; callbacks.progress_bar is the one there is",
}
