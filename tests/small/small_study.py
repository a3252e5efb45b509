"""The study of a second that tests of runs, reports and kills compute: what each of them wants otherwise is given."""

from __future__ import annotations

_TEXT = """
[study]
name = "{name}"
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
steps = {train_steps}
batch = 16
{train}
[masks]
steps = {steps}
samples = 2
lr = 0.8
{masks}
[analyses]
sharing = {{}}
inverse = {{}}
{more}
"""


def small_study(name: str = "tiny", *, train_steps: int = 6, train: str = "", steps: int = 5, masks: str = "", more: str = "") -> str:
    """Return the study's text: two seeds of a network of two hidden layers on add and mul.

    Args:
        name: what it and its cube are called.
        train_steps, steps: of base training, and of each mask stage.
        train, masks: further lines of these tables. more: what follows after the analyses, such as whole tables.
    """
    return _TEXT.format(name=name, train_steps=train_steps, train=train, steps=steps, masks=masks, more=more)


_SCAN = """
[study]
name = "{name}"
[task]
name = "scan"
splits = ["turn_left"]
teacher_forcing = 0.5
[model]
name = "seq2seq_lstm"
embedding = 4
hidden = 5
[train]
steps = {train_steps}
batch = 8
clip = 5.0
validate_every = 0
eval_batch = 4000
[masks]
steps = {steps}
samples = 2
lr = 0.8
exclude = ["*embedding*", "*bias*"]
{more}
"""


def small_scan(name: str = "tiny", *, train_steps: int = 6, steps: int = 5, more: str = "") -> str:
    """Return the text of a study with dropout and coin flips in every batch: a recurrent network on SCAN; arguments as above."""
    return _SCAN.format(name=name, train_steps=train_steps, steps=steps, more=more)
