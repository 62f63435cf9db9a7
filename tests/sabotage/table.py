# SPDX-License-Identifier: Apache-2.0
"""Hand-picked edits, each with a test that has noticed it."""

from tests.sabotage.edits import Sabotage

_EXITS, _DECODING, _TRAINING = "dat_jax/exits", "dat_jax/decoding", "dat_jax/training"

TABLE = (
    # Losses, oracles and distributions.
    Sabotage(
        "dat_jax/losses.py",
        "return weights / weights.sum()",
        "return weights",
        "tests/test_losses.py",
    ),
    Sabotage(
        "dat_jax/losses.py",
        "(1 - label_smoothing) * target_logit + label_smoothing * logits.mean",
        "(1 - label_smoothing) * target_logit + label_smoothing * logits.sum",
        "tests/test_losses.py",
    ),
    Sabotage(
        "dat_jax/losses.py",
        "logits, own_target, weight, label_smoothing)",
        "logits, target, weight, label_smoothing)",
        "tests/test_losses.py",
    ),
    Sabotage(
        f"{_EXITS}/oracles.py",
        "jnp.where(mask, scores, 0.0)",
        "scores",
        "tests/exits/test_oracles.py",
    ),
    Sabotage(
        f"{_EXITS}/oracles.py",
        "scores - exit_penalty * depth",
        "scores + exit_penalty * depth",
        "tests/exits/test_oracles.py",
    ),
    Sabotage(
        f"{_EXITS}/distributions.py",
        "jax.nn.log_sigmoid(-halting_logits)",
        "jax.nn.log_sigmoid(halting_logits)",
        "tests/exits/test_distributions.py",
    ),
    # Rules.
    Sabotage(
        f"{_EXITS}/thresholds.py",
        "above = (self.signal(seen) > tau)",
        "above = (self.signal(seen) < tau)",
        "tests/exits/test_rules.py",
    ),
    Sabotage(
        f"{_EXITS}/sampling.py",
        "jax.random.fold_in(jax.random.key(seed), sentence), position)",
        "jax.random.key(seed), sentence + position)",
        "tests/exits/test_sampling.py",
    ),
    # The engine.
    Sabotage(
        f"{_DECODING}/engine.py",
        "halts = active & (climb.plan.exit_at <= depth)",
        "halts = active & (climb.plan.exit_at < depth)",
        "tests/decoding/test_engine.py",
    ),
    Sabotage(
        f"{_DECODING}/engine.py",
        "active &= ~halts",
        "active &= halts",
        "tests/decoding/test_engine.py",
    ),
    Sabotage(
        f"{_DECODING}/engine.py",
        "needed = jnp.sum(active)",
        "needed = computed",
        "tests/decoding/test_engine.py",
    ),
    Sabotage(
        f"{_DECODING}/engine.py",
        "work = add_run(work, model.config.decoder_layers, needed, computed)",
        "work = add_run(work, model.config.decoder_layers, needed + 1, computed + 1)",
        "tests/decoding/test_engine.py",
    ),
    Sabotage(
        f"{_DECODING}/work.py",
        "int(work.computed[:-1].sum())",
        "int(work.rows[:-1].sum())",
        "tests/decoding/test_work.py",
    ),
    Sabotage(
        f"{_DECODING}/compaction.py",
        "place = jnp.cumsum(self.active) - 1",
        "place = jnp.cumsum(self.active)",
        "tests/decoding/test_compaction.py",
    ),
    Sabotage(
        f"{_DECODING}/cache.py",
        "mask = ages <= rows.take(past.positions)[:, None]",
        "mask = ages < rows.take(past.positions)[:, None]",
        "tests/decoding/test_cache.py",
    ),
    Sabotage(
        f"{_DECODING}/cache.py",
        "ages > 0, rows.take(past.parents)[:, :window], rows.numbers[:, None] % num_beams",
        "ages > 0, rows.numbers[:, None] % num_beams, rows.numbers[:, None] % num_beams",
        "tests/decoding/test_cache.py",
    ),
    Sabotage(
        f"{_DECODING}/beam.py",
        "ending = ends & first &",
        "ending = ends &",
        "tests/decoding/test_beam.py",
    ),
    Sabotage(
        f"{_DECODING}/beam.py",
        "return state.finished_log_probs / lengths**length_penalty",
        "return state.finished_log_probs",
        "tests/decoding/test_beam.py",
    ),
    Sabotage(
        f"{_DECODING}/top_tokens.py",
        "must_end = positions + 1 >= limits",
        "must_end = positions >= limits",
        "tests/decoding/test_beam.py",
    ),
    Sabotage(
        f"{_DECODING}/top_tokens.py",
        "allowed = jnp.where(among.tokens < eos_id, -jnp.inf, among.logits)",
        "allowed = among.logits",
        "tests/decoding/test_shortlists.py",
    ),
    Sabotage(
        f"{_DECODING}/beam.py",
        "best_of_all - state.log_probs >= gap",
        "best_of_all - state.log_probs < gap",
        "tests/decoding/test_trailing.py",
    ),
    Sabotage(
        f"{_DECODING}/engine.py",
        "jnp.where(trails, 1, plan.exit_at)",
        "jnp.where(trails, 2, plan.exit_at)",
        "tests/decoding/test_trailing.py",
    ),
    Sabotage(
        f"{_DECODING}/next_tokens.py",
        "model.table_of(exits) == table",
        "model.table_of(exits) != table",
        "tests/decoding/test_engine.py",
    ),
    Sabotage(
        f"{_DECODING}/queue.py",
        "next_place += jnp.sum(arrivals.slots < settings.slots)",
        "next_place += settings.refill",
        note="a refill has all its sentences or the last of the queue, and nothing asks by how "
        "much the next place is beyond the end",
    ),
    Sabotage(
        f"{_DECODING}/halting.py",
        "answer._replace(exit_at=jnp.minimum(plan.exit_at, answer.exit_at))",
        "answer",
        "tests/decoding/test_halting.py",
    ),
    Sabotage(
        f"{_DECODING}/stripes.py",
        "numbers=numbers[mine],",
        "numbers=range(len(numbers[mine])),",
        "tests/decoding/test_stripes.py",
    ),
    # Training.
    Sabotage(
        f"{_TRAINING}/gradient.py",
        'frozen = jax.lax.stop_gradient(params) | {"exit_head": params["exit_head"]}',
        "frozen = params",
        "tests/training/test_step.py",
    ),
    Sabotage(
        f"{_TRAINING}/step.py",
        'sums = metrics["loss"].total, metrics["gradient_norm"].total',
        'sums = metrics["loss"].total, metrics["loss"].total',
        "tests/training/test_step.py",
    ),
    Sabotage(
        f"{_TRAINING}/step.py",
        "key = jax.random.fold_in(key, state.step)",
        "key = jax.random.fold_in(key, 0)",
        "tests/training/test_step.py",
    ),
    Sabotage(
        f"{_TRAINING}/objective.py",
        "(jnp.any(leaves, axis=0, keepdims=True) if one_for_all else leaves) / samples,",
        "(jnp.any(leaves, axis=0, keepdims=True) if one_for_all else leaves),",
        "tests/training/test_objective.py",
    ),
    Sabotage(
        f"{_TRAINING}/loop.py",
        "checkpoints.save(state, where, stopped=not is_due)",
        "checkpoints.save(state, where, stopped=bool(asked))",
        "tests/training/test_loop.py tests/checkpoints",
    ),
    # What a run starts from.
    Sabotage(
        "dat_jax/runs/warm_start.py",
        "leaf[-1] if leaf.ndim > like.ndim else leaf, like.shape",
        "like, like.shape",
        "tests/runs/test_added_exits.py",
    ),
    Sabotage(
        "dat_jax/runs/workdir.py",
        "if not self.saved_steps:  # a trained model keeps its own",
        "if True:",
        "tests/runs/test_prepared.py",
    ),
    Sabotage(
        "dat_jax/data/given.py",
        "not rules or not ours",
        "True",
        "tests/data/test_given.py",
    ),
    Sabotage(
        "dat_jax/data/sources/text.py",
        "for part in parts\n",
        "for part in parts[:1]\n",
        "tests/data/sources/test_text.py",
    ),
    # How a run is followed.
    Sabotage(
        f"{_TRAINING}/validation.py",
        "return is_new and step > 0 and due",
        "return step > 0 and due",
        "tests/training/test_validation.py",
    ),
    Sabotage(
        "dat_jax/checkpoints/best.py",
        "sum(step > best for step in self._values)",
        "sum(step >= best for step in self._values)",
        "tests/checkpoints/test_best.py",
    ),
    Sabotage(
        "dat_jax/checkpoints/read.py",
        "if not was_stopped(found[2]) and found[0] != best)",
        "if not was_stopped(found[2]))",
        "tests/checkpoints/test_best.py",
    ),
    Sabotage(
        "dat_jax/checkpoints/write.py",
        "kept = {*self.newest(steps), self.best}",
        "kept = {*self.newest(steps)}",
        "tests/checkpoints/test_best.py tests/training/test_validation.py",
    ),
    Sabotage(
        "dat_jax/evaluation/validation_bleu.py",
        "beam_size=1)",
        "beam_size=2)",
        "tests/scripts/test_training.py",
    ),
    # Processes.
    Sabotage(
        "dat_jax/runtime/startup.py",
        "    if coordinator is None or num_processes is None or process_id is None:",
        "    if coordinator is None or num_processes is not None or process_id is None:",
        "tests/scripts/test_several_processes.py",
    ),
    Sabotage(
        "dat_jax/runtime/startup.py",
        "    if coordinator is None and (name := cluster(_CLUSTERS)):",
        "    if coordinator is not None and (name := cluster(_CLUSTERS)):",
        "tests/scripts/test_several_processes.py",
    ),
    # What surrounds them.
    Sabotage(
        "dat_jax/flops.py",
        "deepest = rule.deepest(config.decoder_layers)",
        "deepest = config.decoder_layers",
        "tests/test_flops.py",
    ),
    Sabotage(
        "dat_jax/flops.py",
        "np.maximum.reduceat(exits, starts)",
        "exits[starts]",
        "tests/test_flops.py",
    ),
    Sabotage(
        "dat_jax/tuning/search.py",
        "< kept, drawn, 0)",
        "<= kept, drawn, 0)",
        "tests/tuning",
    ),
    Sabotage(
        "dat_jax/tuning/search.py",
        'dataset.tokens("valid")',
        'dataset.tokens("test")',
        "tests/tuning tests/scripts",
    ),
    # Drawn, and without an effect.
    Sabotage(
        "dat_jax/data/sources/generated.py",
        "        if phrases and random.random() < 0.7:",
        "        if phrases and random.random() <= 0.7:",
        note="no draw equals 0.7",
    ),
    Sabotage(
        "dat_jax/data/sources/held_out.py",
        "        number = 0",
        "        number = 1",
        note="counts the pairs of an empty source, which is refused before",
    ),
    Sabotage(
        f"{_EXITS}/arguments.py",
        "    first, last = map(int, depths.groups()) if depths else (0, 0)",
        "    first, last = map(int, depths.groups()) if depths else (1, 0)",
        note="depth 0 is refused, whatever the other one is",
    ),
    Sabotage(
        f"{_DECODING}/sizing.py",
        "    fewest_rows: int = 32  # gathering fewer saves nothing",
        "    fewest_rows: int = 33  # gathering fewer saves nothing",
        note="another size on GPUs and TPUs, and the same translations",
    ),
    Sabotage(
        "dat_jax/evaluation/pipeline.py",
        "    hypotheses = writer.lines(HYPOTHESES) if writer and text.references is not None "
        "else []",
        "    hypotheses = writer.lines(HYPOTHESES) if writer else []",
        note="reads what is used with references alone",
    ),
    Sabotage(
        "dat_jax/evaluation/scorer.py",
        "        size = platform_of(self.trained.device).window * len(self.trained.devices)",
        "        size = platform_of(self.trained.device).window",
        note="reads fewer lines at a time",
    ),
    Sabotage(
        "dat_jax/evaluation/tables.py",
        "_GREEN_TO_RED = (84, 120, 156, 192, 228, 222, 216, 210, 204)  "
        "# of the 256 colours of a terminal",
        "_GREEN_TO_RED = (84, 120, 156, 193, 228, 222, 216, 210, 204)  "
        "# of the 256 colours of a terminal",
        note="a colour between the same two, a little lighter",
    ),
)
