"""What can go wrong, as typed errors. The text of each is a clear sentence for the user."""


class KsddError(Exception):
    """Base of every error that a user can cause and correct; its text says what to do."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows instead of a traceback, which would not help to correct it."""
        return [f"{type(self).__name__}: {self}"]


class SettingsError(KsddError):
    """A hyperparameter is unknown, of the wrong type or out of range."""


class DataError(KsddError):
    """The data set is missing, damaged or not in the expected layout."""


class FoldError(KsddError):
    """A split into training and test images is invalid or leaks."""


class CheckpointError(KsddError):
    """A checkpoint is damaged, or belongs to another run, stage, fold or data set."""


class TrainingError(KsddError):
    """Training cannot go on: it diverged, or the machine's memory is too small."""


class DiskFullError(KsddError, OSError):
    """The disk has no room for a file; the file that it was to replace is intact."""

    def __str__(self) -> str:
        return str(self.strerror)


class Interrupted(KeyboardInterrupt):
    """The user stopped a training; the text says what is kept and how to go on."""

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self}"]


class RunError(KsddError):
    """A run folder lacks an earlier step, or holds results of something else."""


class MissingError(RunError):
    """There is no run yet, or a part of it is not finished; its text says what to run first."""
