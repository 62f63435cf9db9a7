# SPDX-License-Identifier: Apache-2.0
"""Depth-Adaptive Transformer (Elbayad, Gu, Grave and Auli, ICLR 2020) in JAX and Flax."""

__version__ = "0.1.0"
