"""Sweeps: millions of points of a scenario, streamed to Parquet."""
