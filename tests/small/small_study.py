"""The study that reports are written of: it runs in a second."""

STUDY = """
[study]
name = "tiny"
description = "A study that runs in a second."
seeds = 2
[task]
name = "addmul"
train_size = 400
valid_size = 60
[model]
name = "fnn"
hidden = [12, 8]
[train]
steps = 6
batch = 16
[masks]
steps = 5
samples = 2
lr = 0.8
[analyses]
sharing = {}
inverse = {}
[sweep]
"masks.beta" = [1e-4, 1e-3]
[run]
threads = 1
[variants.one]
"study.seeds" = 1
"masks.beta" = 1e-4
"""
