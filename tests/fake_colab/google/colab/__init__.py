"""What the notebooks use of Colab's own package, for tests: it behaves, and fails, as the real one.

$FAKE_DRIVE is the folder that Drive shows as MyDrive, $FAKE_DOWNLOADS where downloads arrive.
"""

from google.colab import drive, files, output, runtime, userdata

__all__ = ["drive", "files", "output", "runtime", "userdata"]
