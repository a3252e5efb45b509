"""First-party figures."""
