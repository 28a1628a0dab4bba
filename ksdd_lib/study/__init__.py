"""Many settings times folds: a grid trained by Dask's workers, and what its factors change."""
