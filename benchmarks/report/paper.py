# SPDX-License-Identifier: Apache-2.0
"""The paper's own numbers: BLEU on IWSLT'14, German to English, tokenised; tables 1 to 3.

A row holds random exits, then exits 1 to 6; the exits of a baseline are models of 1 to 6 blocks.
Its key is a name of `benchmarks.reproduce.suites`.
"""

Row = tuple[float | None, ...]

BLEU: dict[str, dict[str, Row]] = {
    "valid": {
        "baseline": (None, 34.2, 35.3, 35.6, 35.7, 35.6, 35.9),
        "aligned": (35.5, 34.1, 35.5, 35.8, 36.1, 36.1, 36.2),
        "mixed_1": (34.1, 32.9, 34.3, 34.5, 34.5, 34.6, 34.5),
        "mixed_3": (35.1, 33.9, 35.2, 35.4, 35.5, 35.5, 35.5),
        "mixed_6": (35.3, 34.2, 35.4, 35.8, 35.9, 35.8, 35.9),
        "weights_n": (35.3, 32.2, 35.0, 35.8, 36.0, 36.2, 36.3),
        "weights_sqrt_n": (35.4, 33.3, 35.2, 35.8, 35.9, 36.1, 36.1),
        "weights_1_over_sqrt_n": (35.6, 34.5, 35.4, 35.7, 35.8, 35.8, 35.9),
        "weights_1_over_n": (35.3, 34.7, 35.3, 35.5, 35.7, 35.8, 35.8),
        "gradient_scaling_0.3": (35.1, 33.7, 34.7, 35.3, 35.7, 35.8, 36.0),
        "gradient_scaling_0.5": (35.4, 34.8, 35.4, 35.6, 35.6, 35.7, 35.6),
        "gradient_scaling_0.7": (34.9, 34.6, 35.1, 35.1, 35.2, 35.4, 35.3),
        "gradient_scaling_0.9": (34.9, 34.8, 35.3, 35.3, 35.3, 35.4, 35.5),
        "gradient_scaling_1.1": (35.1, 34.9, 35.2, 35.3, 35.3, 35.3, 35.3),
    },
    "test": {
        "baseline": (None, 33.7, 34.6, 34.6, 34.6, 34.6, 34.8),
        "aligned": (34.4, 33.2, 34.4, 34.8, 34.9, 35.0, 34.9),
        "weights_n": (34.2, 31.4, 33.8, 34.7, 34.8, 34.8, 34.9),
        "weights_sqrt_n": (34.4, 32.5, 34.1, 34.8, 34.9, 35.0, 35.1),
        "weights_1_over_sqrt_n": (34.6, 33.7, 34.3, 34.6, 34.8, 34.8, 34.9),
        "weights_1_over_n": (34.2, 33.8, 34.3, 34.5, 34.6, 34.7, 34.7),
        "gradient_scaling_0.3": (34.2, 32.8, 33.9, 34.3, 34.6, 34.8, 35.0),
        "gradient_scaling_0.5": (34.5, 33.8, 34.2, 34.6, 34.5, 34.7, 34.7),
        "gradient_scaling_0.7": (34.0, 33.7, 34.2, 34.3, 34.3, 34.3, 34.3),
        "gradient_scaling_0.9": (34.1, 34.0, 34.2, 34.3, 34.4, 34.4, 34.4),
        "gradient_scaling_1.1": (34.2, 34.0, 34.3, 34.3, 34.3, 34.3, 34.2),
    },
}
