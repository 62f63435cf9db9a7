# SPDX-License-Identifier: Apache-2.0
"""The exceptions that the command line shows as a single line."""


class UserError(Exception):
    """An error that the user can fix; the message is one line that says how.

    The scripts print it and exit with a non-zero status; every other exception is a defect of
    ours and keeps its traceback.
    """


class Stopped(Exception):
    """A run stopped on request; the message is one line that says how to resume it."""

    def __init__(self, message: str, status: int) -> None:
        """Takes the message and the exit status of the script."""
        super().__init__(message)
        self.status = status
