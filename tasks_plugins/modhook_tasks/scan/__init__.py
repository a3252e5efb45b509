"""The SCAN task."""
