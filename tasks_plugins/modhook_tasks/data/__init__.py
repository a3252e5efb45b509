"""Where real data come from: downloads with a checksum, and readers of the official file formats."""
