"""A task plugin for modhook."""
