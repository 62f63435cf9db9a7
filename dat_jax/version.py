# SPDX-License-Identifier: Apache-2.0
"""The version of the package, which it writes into the files that it leaves."""

__version__ = "0.2.0"
