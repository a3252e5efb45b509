"""First-party protocols."""
