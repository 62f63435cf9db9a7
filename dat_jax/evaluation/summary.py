# SPDX-License-Identifier: Apache-2.0
"""The fields of `summary.json`, each explained; `docs/glossary.md` has them as tables."""

from typing import Any, NotRequired, TypedDict


class Origin(TypedDict):
    """The request, the policy, the model and the code that the figures of a decode are of.

    A field that is `NotRequired` is there only where it can be known.
    """

    policy: str
    """The exit rule, as `--config.policy` reads it."""
    thresholds: Any
    """The rule's thresholds, as those of a tuned policy; null if it has none."""
    shortlist: int
    """`decoding.shortlist`, 0 where every exit scores all tokens."""
    trailing_gap: float
    """`decoding.trailing_gap`, 0 where the rule alone decides."""
    device: str
    """Number and kind of the devices, those of all processes."""
    checkpoint_step: int
    """Training step of the newest checkpoint that was averaged."""
    averaged_checkpoints: int
    """Checkpoints whose parameters were averaged."""
    seed: int
    """`training.seed` of the model."""
    config_sha256: str
    """Checksum of the run's config."""
    commit: str
    """The commit of this package, with `-dirty` if files were changed; "unknown" if installed."""
    engine_sha256: str
    """Checksum of the sources of the decoding package."""
    text_sha256: NotRequired[str | None]
    """Checksum of the source text; null if it could be read only once."""
    references_sha256: NotRequired[str | None]
    """Checksum of the references, if there are any."""
    translations_sha256: NotRequired[str | None]
    """Checksum of the translations that were scored; null if they could be read only once."""
    request: NotRequired[dict[str, Any]]
    """What was asked for: the workdir, the texts and all settings of decoding."""
    contents: NotRequired[dict[str, Any]]
    """Checksums of what the request names: texts, parameters; and the rule."""


class Summary(Origin):
    """All figures of one decode; those that are `NotRequired` need references."""

    bleu: NotRequired[float]
    """Corpus score from 0 to 100, by the tokenizer of `decoding.bleu_tokenizer`; if there are
    references."""
    bleu_signature: NotRequired[str]
    """How sacrebleu computed `bleu`."""
    bleu_default: NotRequired[float]
    """The same score by the target language's own tokenizer, if that is another."""
    bleu_default_signature: NotRequired[str]
    """How sacrebleu computed `bleu_default`."""
    chrf: NotRequired[float]
    """Corpus chrF from 0 to 100; if there are references."""
    chrf_signature: NotRequired[str]
    """How sacrebleu computed `chrf`."""
    average_exit: float
    """Mean exit over the tokens of the translations, EOS counted."""
    exit_histogram: dict[int, int]
    """Tokens of the translations by the depth at which they exited."""
    flops_per_token: float
    """FLOPs of the decoder for a token of the translations, by the paper's formula."""
    layers_executed_per_token: float
    """Rows on which blocks were computed, idle rows and other hypotheses included, for a token of
    the translations."""
    ticks: int
    """Runs of all stages: blocks and classifiers."""
    ticks_per_stage: list[int]
    """Runs of blocks 1 to N and, last, of the classifiers."""
    rows_per_stage: list[int]
    """Rows that needed each stage, summed over its runs."""
    occupancy: float
    """Share of the computed rows that were needed, over all stages."""
    busiest_device: float
    """Rows of blocks that the busiest device computed, divided by the mean of all devices."""
    tokens_per_second: float
    """`tokens` divided by `seconds`."""
    seconds: float
    """Time of decoding, encoder included, compiling left out."""
    seconds_compiling: float
    """Time of compiling, or of reading programs that were kept."""
    in_work: int
    """The most sentences that were decoded together, on all devices."""
    peak_bytes: int
    """Memory of the largest compiled search on a device, parameters included; 0 if its compiler
    does not say."""
    sentences: int
    """Translations, those of blank lines included."""
    sentences_cut: int
    """Sources that were cut to `decoding.max_source_length`."""
    sentences_too_long: int
    """Sentences left blank because they do not fit into memory."""
    tokens: int
    """Tokens of the translations, EOS counted."""
    beam_size: int
    """`decoding.beam_size`."""
    batch_size: int
    """`decoding.batch_size`, 0 for as many sentences as are efficient; see `in_work`."""
    length_penalty: float
    """`decoding.length_penalty`."""


class ScoreSummary(Origin):
    """All figures of given translations that were scored (forced decoding).

    Depths are those of the exits. No state is a copy, as if all tokens ran all blocks.
    """

    log_prob: dict[int, float]
    """Log-probability of all translations, over the whole vocabulary, if every token exited at this
    depth."""
    perplexity: dict[int, float]
    """The same per token: exp(-`log_prob` / `tokens`)."""
    log_prob_at_exits: float
    """Log-probability of all translations with the exits that the policy chooses."""
    perplexity_at_exits: float
    """The same per token."""
    average_exit: float
    """Mean exit that the policy chooses, over all tokens."""
    exit_histogram: dict[int, int]
    """Tokens by the depth that the policy chooses."""
    tokens: int
    """Tokens of the translations, EOS counted."""
    sentences: int
    """Translations, blank ones included."""
    sentences_cut: int
    """Sources that were cut to `decoding.max_source_length`."""
    sentences_too_long: int
    """Sentences left out because they or their translations do not fit into memory."""
    seconds: float
    """Time of scoring, compiling included."""
