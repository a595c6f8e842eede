"""Benchmark of masks: given, corrected by the series, true, dilated, and corrected by published methods.

``python -m benchmarks.masks --data DIR`` adds the clouds of real dates to clear frames of each series in DIR, fills
them by `regress` under each mask, and writes docs/development/masks.md. The pieces: `places` (the series and their
covers), `measure` (scores of each mask on each case), `tables`, `page`.

``python -m benchmarks.masks.scenes`` needs no data: it corrects masks in made-up landscapes of which the truth is known
(`landscapes`, `odd_series`), and prints what is reached of the goals.
"""
