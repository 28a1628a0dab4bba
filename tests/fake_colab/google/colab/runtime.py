"""The machine itself."""

import os
import signal


def unassign() -> None:
    """Give the machine back: the kernel ends at once."""
    os.kill(os.getpid(), signal.SIGKILL)
