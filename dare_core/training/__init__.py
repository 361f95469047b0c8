"""Training: the loop, optimizers, gradients split by module, finished runs."""
