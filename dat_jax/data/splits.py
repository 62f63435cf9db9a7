# SPDX-License-Identifier: Apache-2.0
"""The parts of a data set: trained on, tuned on, and looked at once."""

SPLITS = ("train", "valid", "test")
