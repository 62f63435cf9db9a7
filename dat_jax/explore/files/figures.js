// SPDX-License-Identifier: Apache-2.0
// Exits by a threshold and what they cost and give. Signals and thresholds are whole numbers.

// The first depth whose signal is above the threshold, or N. A threshold of 0 lets all exit.
function exitAt(token, kind, threshold) {
  const found = token.signals[kind].findIndex((signal) => signal > threshold || threshold <= 0);
  return found < 0 ? token.likeliest.length : found + 1;
}

// Thresholds at which exits differ: quantiles of the signals, and the two ends.
function thresholdsFor(tokens, kind, one, steps = 100) {
  const all = tokens.flatMap((token) => token.signals[kind]).sort((a, b) => a - b);
  const levels = Array.from({ length: steps }, (_, i) => all[Math.floor((i * all.length) / steps)] ?? 0);
  return [...new Set([0, ...levels, one])];
}

const isRight = (token, exit) => token.likeliest[exit - 1][0] === token.piece;
const isAgreed = (token, exit) => token.likeliest[exit - 1][0] === token.likeliest.at(-1)[0];

// Means over tokens that exit at these depths.
function means(tokens, exits) {
  const sum = { exit: 0, tokenLl: 0, right: 0, agreed: 0 };
  tokens.forEach((token, i) => {
    sum.exit += exits[i];
    sum.tokenLl += token.tokenLl[exits[i] - 1];
    sum.right += isRight(token, exits[i]);
    sum.agreed += isAgreed(token, exits[i]);
  });
  return Object.fromEntries(Object.entries(sum).map(([name, value]) => [name, value / tokens.length]));
}

// How often tokens of each key exit at each depth, in the order in which keys are met.
function tally(tokens, exits, keyOf, depths) {
  const rows = new Map();
  tokens.forEach((token, i) => {
    const key = keyOf(token);
    if (!rows.has(key)) rows.set(key, { key, counts: Array(depths).fill(0), count: 0, mean: 0 });
    const row = rows.get(key);
    row.counts[exits[i] - 1] += 1;
    row.mean = (row.mean * row.count + exits[i]) / (row.count + 1);
    row.count += 1;
  });
  return [...rows.values()];
}
