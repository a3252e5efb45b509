"""A network as an object: what it holds, how it is lent out and put back, and how it is copied."""
