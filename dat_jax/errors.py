# SPDX-License-Identifier: Apache-2.0
"""The exceptions that the command line shows as a single line."""


class UserError(Exception):
    """An error that the user can fix; the message is one line that says how.

    The scripts print it and exit with a non-zero status; every other exception is a defect of
    ours and keeps its traceback.
    """


class Stopped(Exception):
    """A run that was asked to stop and may be gone on with: one line that says how."""

    def __init__(self, message: str, status: int) -> None:
        """Takes the line, and the exit status of the script that was stopped."""
        super().__init__(message)
        self.status = status
