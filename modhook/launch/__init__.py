"""Runs on other processes and machines: dask workers, each with whole runs; torch ranks, which share the samples of one."""
