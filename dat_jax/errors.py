# SPDX-License-Identifier: Apache-2.0
"""The one exception that the command line shows as a single line."""


class UserError(Exception):
    """A mistake that its maker can mend: the message is one line that names the mend.

    The scripts print it and exit with a non-zero status; every other exception is a defect of
    ours and keeps its traceback.
    """
