"""One module per experiment: each builds data, init, loss, evaluation and figures from a config."""
