// SPDX-License-Identifier: Apache-2.0
// Builds the page from its data, and answers the filter, the slider and the two menus.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const hasReferences = data.sentences.some((sentence) => "reference" in sentence);
const NAMES = { confidence: "confidence", token_geometric: "halting probability" };
const DECODED = "the translations, as decoded";
const FORCED = `the ${hasReferences ? "references" : "translations"}, at this threshold`;
const QUALITY = hasReferences ? "log-likelihood per token" : "share as at full depth";
const rounded = (value, digits) => value.toFixed(digits).replace("-", "−");

const sentences = data.sentences.map((sentence) => {
  const decoded = unpack(sentence.translation, sentence.line, false);
  const columns = sentence.reference ?? sentence.translation;
  const forced = unpack(columns, sentence.line, hasReferences);
  const [from, to] = data.languages;
  const at = `line ${sentence.line}`;
  const kind = (text) => make("span", { className: "kind", textContent: text });
  const element = make(
    "article", {},
    make("h3", { textContent: `Line ${sentence.line}` }),
    make("p", { className: "source", dir: "auto", lang: from, textContent: sentence.source }),
    kind(`Translation, exits as decoded (${data.policy})`),
    tokenRow(decoded, data, `Translation, ${at}, exits as decoded`, to),
    kind(`${hasReferences ? "Reference" : "Translation"}, exits at the slider’s threshold`),
    tokenRow(forced, data, `${hasReferences ? "Reference" : "Translation"}, ${at}, exits at the threshold`, to),
  );
  decoded.forEach((token, i) => paint(token, sentence.exits[i], data));
  const words = [sentence.source, sentence.text, sentence.reference_text ?? ""].join("\n").toLowerCase();
  return { element, decoded, forced, words };
});
const everyForced = sentences.flatMap((sentence) => sentence.forced);
const choice = choosable(byId("sentences"), data);
let thresholds = [];
let lines = {}; // of the plot

// The tokens of shown sentences, and where they exit.
function shown(which) {
  const tokens = sentences.filter((sentence) => !sentence.element.hidden).flatMap((sentence) => sentence[which]);
  return { tokens, exits: tokens.map((token) => token.exit) };
}

const quality = (mean) => (hasReferences ? mean.tokenLl / data.log_likelihood : mean.agreed);

function readout(threshold, mean) {
  const parts = [`${NAMES[byId("signal").value]} above ${threshold}`, `average exit ${rounded(mean.exit, 2)} of ${data.depths}`];
  if (hasReferences) {
    parts.push(`log-likelihood ${rounded(quality(mean), 4)} per token (perplexity ${rounded(Math.exp(-quality(mean)), 3)})`);
    parts.push(`${rounded(100 * mean.right, 1)} % of reference tokens are the likeliest at their exit`);
  }
  parts.push(`${rounded(100 * mean.agreed, 1)} % predict what the last exit predicts`);
  return parts.join("; ");
}

function svg(name, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.textContent = text;
  return element;
}

// Measures what the plot shows of all thresholds.
function measure() {
  const [kind, { tokens }] = [byId("signal").value, shown("forced")];
  const at = (exitOf) => means(tokens, tokens.map(exitOf));
  lines = {
    curve: thresholds.map((threshold) => at((token) => exitAt(token, kind, threshold))),
    fixed: Array.from({ length: data.depths }, (_, i) => at(() => i + 1)),
    oracle: at((token) => token.oracle),
  };
}

// Draws quality against average exit.
function plot({ curve, fixed, oracle }, now) {
  const heights = [...curve, ...fixed, oracle].map(quality);
  const [low, high] = [Math.min(...heights), Math.max(...heights)];
  const x = (mean) => 60 + (400 * (mean.exit - 1)) / Math.max(data.depths - 1, 1);
  const y = (value) => 210 - (190 * (value - low)) / (high - low || 1);
  const parts = [];
  for (let depth = 1; depth <= data.depths; depth++) {
    const place = x({ exit: depth });
    parts.push(svg("line", { class: "axis", x1: place, x2: place, y1: 15, y2: 215 }));
    parts.push(svg("text", { x: place, y: 230, "text-anchor": "middle" }, depth));
  }
  for (let i = 0; i < 4; i++) {
    const value = low + ((high - low) * i) / 3;
    parts.push(svg("line", { class: "axis", x1: 55, x2: 465, y1: y(value), y2: y(value) }));
    parts.push(svg("text", { x: 50, y: y(value) + 4, "text-anchor": "end" }, rounded(value, 3)));
  }
  parts.push(svg("text", { x: 260, y: 250, "text-anchor": "middle" }, "average exit"));
  parts.push(svg("text", { x: 60, y: 10 }, QUALITY));
  const points = curve.map((mean) => `${x(mean)},${y(quality(mean))}`).join(" ");
  parts.push(svg("polyline", { class: "curve", points }));
  for (const mean of fixed) {
    parts.push(svg("rect", { class: "fixed", x: x(mean) - 4, y: y(quality(mean)) - 4, width: 8, height: 8 }));
  }
  const [ox, oy] = [x(oracle), y(quality(oracle))];
  parts.push(svg("path", { class: "oracle", d: `M${ox},${oy - 7}l7,7l-7,7l-7,-7z` }));
  parts.push(svg("circle", { class: "now", cx: x(now), cy: y(quality(now)), r: 7 }));
  byId("plot").replaceChildren(...parts);
  const all = fixed.map((mean, i) => `depth ${i + 1}: ${rounded(quality(mean), 4)}`).join(", ");
  byId("plot").setAttribute(
    "aria-label",
    `${QUALITY} against average exit. This threshold: ${rounded(quality(now), 4)} at ${rounded(now.exit, 2)}. ` +
      `All tokens at ${all}. Oracle: ${rounded(quality(oracle), 4)} at ${rounded(oracle.exit, 2)}.`,
  );
}

function fill(id, head, rows) {
  const body = rows.map(({ name, counts, count, mean }) => {
    const bar = make("div", { className: "bar" });
    bar.setAttribute("aria-hidden", "true");
    counts.forEach((number, i) => {
      if (!number) return;
      const part = make("span", { className: "depth" });
      part.style.width = `${(100 * number) / count}%`;
      colour(part, i + 1, data.depths);
      bar.append(part);
    });
    const words = counts.map((number, i) => `${number} at ${i + 1}`).filter((_, i) => counts[i]).join(", ");
    bar.title = words;
    const cell = make("td", {}, bar, make("span", { className: "unseen", textContent: words }));
    const label = make("th", { scope: "row" }, make("bdi", { textContent: name }));
    return make("tr", {}, label, cell, make("td", { textContent: rounded(mean, 2) }), make("td", { textContent: count }));
  });
  const heads = [head, "exits", "mean", "tokens"].map((text) => make("th", { scope: "col", textContent: text }));
  const table = byId(id);
  table.replaceChildren(table.caption, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...body));
}

const EDGES = [0.5, 0.7, 0.9, 0.99, 0.999];

function tables() {
  const { tokens, exits } = shown(byId("which").value);
  const count = (keyOf) => tally(tokens, exits, keyOf, data.depths);
  const positions = count((token) => token.position).sort((a, b) => a.key - b.key);
  fill("by-position", "position", positions.map((row) => ({ ...row, name: row.key })));
  const pieces = count((token) => token.piece).sort((a, b) => b.count - a.count).slice(0, 40);
  pieces.sort((a, b) => b.mean - a.mean);
  fill("by-piece", "piece", pieces.map((row) => ({ ...row, name: data.pieces[row.key] })));
  const bin = (token) => EDGES.filter((edge) => token.likeliest[0][1] >= edge * data.probability).length;
  const bins = count(bin).sort((a, b) => a.key - b.key);
  const name = (key) => `${EDGES[key - 1] ?? 0} to ${EDGES[key] ?? 1}`;
  fill("by-confidence", "confidence", bins.map((row) => ({ ...row, name: name(row.key) })));
}

// Applies the threshold to all forced tokens, and measures those that are shown.
function apply() {
  const [kind, threshold] = [byId("signal").value, thresholds[byId("threshold").value]];
  for (const token of everyForced) paint(token, exitAt(token, kind, threshold), data);
  const value = (threshold / data.probability).toFixed(5);
  byId("threshold").setAttribute("aria-valuetext", value);
  const { tokens, exits } = shown("forced");
  if (tokens.length) {
    const mean = means(tokens, exits);
    byId("readout").textContent = readout(value, mean);
    byId("short").textContent = `${value}: average exit ${rounded(mean.exit, 2)}, ${QUALITY} ${rounded(quality(mean), 4)}`;
    plot(lines, mean);
  } else {
    byId("readout").textContent = byId("short").textContent = "no sentences are shown";
    byId("plot").replaceChildren();
    byId("plot").setAttribute("aria-label", "nothing to plot");
  }
  tables();
  choice.refresh();
}

// Takes the thresholds of a signal, and the one whose average exit is nearest to the decoder's.
function useSignal() {
  thresholds = thresholdsFor(everyForced, byId("signal").value, data.probability);
  measure();
  const decoded = shown("decoded");
  const gaps = lines.curve.map((mean) => Math.abs(mean.exit - means(decoded.tokens, decoded.exits).exit));
  byId("threshold").max = thresholds.length - 1;
  byId("threshold").value = gaps.indexOf(Math.min(...gaps));
}

function filter() {
  const wanted = byId("filter").value.toLowerCase();
  for (const sentence of sentences) sentence.element.hidden = !sentence.words.includes(wanted);
  const count = sentences.filter((sentence) => !sentence.element.hidden).length;
  byId("matches").textContent = `${count} of ${sentences.length}`;
}

byId("about").textContent =
  `${data.text}, ${data.languages.join(" to ")}, ${sentences.length} sentences; policy ${data.policy}, beam ${data.beam_size}; ` +
  `checkpoint${data.steps.length > 1 ? "s" : ""} at step ${data.steps.join(", ")}; dat_jax ${data.version}`;
byId("explain").textContent =
  "A token exits at the first depth whose signal is above the threshold. Estimated in one pass over the " +
  `${hasReferences ? "references" : "translations"}, in which all tokens run through all blocks; a decoder’s later tokens ` +
  `attend to copied states, and its exits differ somewhat. ${hasReferences ? `Oracle: ${data.oracle}.` : "Oracle: the first depth that predicts what the last exit predicts."}`;
byId("note").textContent =
  "Confidence: the probability of the likeliest token. Probabilities are over the whole vocabulary, in a pass in which " +
  "all tokens run through all blocks: in a translation, the decoder’s own may differ somewhat. ▁ begins a word.";
for (let depth = 1; depth <= data.depths; depth++) {
  const sample = make("span", { className: "depth", textContent: depth });
  colour(sample, depth, data.depths);
  byId("legend").append(sample);
}
const kinds = everyForced[0].halting.length ? ["confidence", "token_geometric"] : ["confidence"];
for (const kind of kinds) byId("signal").append(new Option(NAMES[kind], kind, false, kind === data.kind));
byId("which").append(new Option(DECODED, "decoded"), new Option(FORCED, "forced"));
byId("sentences").append(...sentences.map((sentence) => sentence.element));
byId("threshold").addEventListener("input", apply);
byId("signal").addEventListener("change", () => (useSignal(), apply()));
byId("which").addEventListener("change", tables);
byId("filter").addEventListener("input", () => (filter(), measure(), apply()));
filter();
useSignal();
apply();
