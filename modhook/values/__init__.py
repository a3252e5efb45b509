"""What a value may be: numbers of any library, bounds, and how values are written in messages."""
