# SPDX-License-Identifier: Apache-2.0
"""Exports a trained model: `python -m dat_jax.export --workdir=W --format=FORMAT --output=DIR`.

`ctranslate2.Translator` loads what --format=ctranslate2 writes, and `dat_jax.load` reads what
--format=safetensors writes, as does this program. --depth=K ends the decoder with the exit at K.
"""

import sys
from collections.abc import Sequence

from absl import flags

from dat_jax.api import load
from dat_jax.cli.command_line import define_checkpoints, define_path, define_workdir, run
from dat_jax.config.schema import require
from dat_jax.export.ctranslate2 import ctranslate2_writer
from dat_jax.export.cut import up_to
from dat_jax.export.folder import new_folder
from dat_jax.export.safetensors import safetensors_writer


def main(argv: Sequence[str]) -> int:
    """Exports as the command line says; returns the exit status."""
    options = flags.FlagValues()
    define_workdir(options)
    formats = ["ctranslate2", "safetensors"]
    flags.DEFINE_enum("format", None, formats, "What to write.", options, required=True)
    define_path(options, "output", "The folder to write, new or empty.")
    depth = "The exit that ends the decoder, by default the last."
    flags.DEFINE_integer("depth", None, depth, flag_values=options)
    quantization = "Type of the weights in CTranslate2, such as int8; by default float32."
    flags.DEFINE_string("quantization", None, quantization, options)
    define_checkpoints(options)
    return run(argv, options, lambda: _main(options))


def _main(options: flags.FlagValues) -> None:
    """Loads the model, cuts it and writes it."""
    if options.format == "ctranslate2":
        write, use = ctranslate2_writer(options.quantization), "its README.md says how to use it"
    else:
        require(
            options.quantization is None,
            f"--quantization={options.quantization}: only --format=ctranslate2 has it",
        )
        write, use = safetensors_writer(), f'load it with dat_jax.load("{options.output}")'
    with new_folder(options.output) as folder:
        model = load(options.workdir, options.average_checkpoints, options.checkpoint)
        write(up_to(model.trained, options.depth), folder)
    print(f"wrote {options.output}: {use}")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
