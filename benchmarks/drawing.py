# SPDX-License-Identifier: Apache-2.0
"""Draws figures with Matplotlib (the extra `plots`): equal data gives an equal file."""

from pathlib import Path
from typing import Any

from dat_jax.errors import UserError


def check_drawing() -> None:
    """Checks that figures can be drawn.

    Raises:
        UserError: Matplotlib is not installed.
    """
    try:
        _pyplot()
    except ImportError:
        raise UserError("figures need matplotlib: pip install -e '.[plots]'") from None


def panels(columns: int, size: tuple[float, float], rows: int = 1, **options: Any) -> Any:
    """Returns a figure and its axes [rows, columns], each of `size` inches."""
    figsize = (size[0] * columns, size[1] * rows)
    return _pyplot().subplots(
        rows, columns, figsize=figsize, squeeze=False, layout="constrained", **options
    )


def save(figure: Any, path: Path) -> None:
    """Writes a figure to an SVG file and closes it."""
    figure.savefig(path, metadata={"Date": None})
    _pyplot().close(figure)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "dat_jax"  # else identifiers are random
    return pyplot
