"""Whether a training set keeps its contract, whoever wrote it."""
