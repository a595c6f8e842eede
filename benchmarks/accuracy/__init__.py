"""Per-frame hold-out on real series: trains what is missing, measures, and writes docs/development/accuracy.md.

::

    python -m benchmarks.accuracy --data DIR --sample FILE --folds runs/folds

DIR holds the training series as NetCDF, FILE is the sample cube.
"""
