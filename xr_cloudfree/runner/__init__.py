"""Runs: regions filled one by one into a Zarr store, with a journal from which a run continues and is verified."""
