"""How a run ends before its time."""

from __future__ import annotations


class RunError(RuntimeError):
    """A run cannot start or go on; the message says what to do.

    Args:
        message: For the user.
        code: What the command leaves with: 1 the run failed, 2 its options are at fault.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class Stopped(KeyboardInterrupt):
    """The run was told to stop and has saved all that it needs to go on."""
