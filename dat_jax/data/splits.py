# SPDX-License-Identifier: Apache-2.0
"""The splits of a data set: for training, tuning and the final test."""

SPLITS = ("train", "valid", "test")
