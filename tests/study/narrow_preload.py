"""What each of Dask's workers loads first in a test: a network of 64 channels instead of 1024."""

from ksdd_lib.models import two_stage

two_stage.FEATURES = 64
