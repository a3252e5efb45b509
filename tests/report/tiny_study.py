"""The study that reports are written of: it runs in a second."""

from small_study import small_study

STUDY = small_study(
    more="""[sweep]
"masks.beta" = [1e-4, 1e-3]
[run]
threads = 1
[variants.one]
"study.seeds" = 1
"masks.beta" = 1e-4"""
)
