"""First-party plugins of modhook."""
