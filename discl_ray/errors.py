"""What can go wrong that a user can mend.

    DisclError
    |- ConfigError     the configuration: every problem at once, nothing started (exit code 2)
    |- SetupError      the machine: versions, permissions, resources, a run in use (exit code 2)
    |- ModelError      a model folder that cannot be used (exit code 2)
    |- DataError       a data set or an image that cannot be used
    |    `- ImageError   one image; becomes a row with a reason, never the end of a job
    `- IntegrityError  tables on disk that contradict each other

Messages name the key or file, the value, what is allowed and how to mend it.
"""


class DisclError(Exception):
    """Base of every error a user is meant to read; its message is the whole report."""

    exit_code = 1


class ConfigError(DisclError):
    """One or more configuration values are wrong; the message lists all of them."""

    exit_code = 2


class SetupError(DisclError):
    """The machine or the run directory is not fit for the job."""

    exit_code = 2


class ModelError(DisclError):
    """A model folder lacks a part, holds no safetensors, or does not fit."""

    exit_code = 2


class DataError(DisclError):
    """A data set cannot be read as configured."""

    exit_code = 2


class ImageError(DataError):
    """One image cannot be decoded; `reason` is the word that goes into its row."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason


class IntegrityError(DisclError):
    """Committed tables contradict each other or their manifest."""
