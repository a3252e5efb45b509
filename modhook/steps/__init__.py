"""Learning step by step: loop, batches, optimisers, checkpoints, ranks of torchrun, base training."""
