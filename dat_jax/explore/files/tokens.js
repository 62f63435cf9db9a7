// SPDX-License-Identifier: Apache-2.0
// Sentences as elements, their tokens by keyboard and pointer, and the panel of the chosen token.

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

const spoken = (piece) => piece.replaceAll("▁", " ").trim() || piece;

// Unpacks the tokens of a translation. Their signals are those of rules, at depths 1 to N - 1.
function unpack(columns, line, ofReference) {
  return columns.pieces.map((piece, i) => {
    const [likeliest, halting] = [columns.likeliest[i], columns.halting[i] ?? []];
    const signals = { confidence: likeliest.slice(0, -1).map((row) => row[1]), token_geometric: halting };
    const [oracle, tokenLl] = [columns.oracle[i], columns.token_ll[i]];
    return { piece, line, ofReference, position: i + 1, oracle, tokenLl, likeliest, halting, signals, exit: 0 };
  });
}

// A row of tokens that is one stop of the Tab key.
function tokenRow(tokens, data, label, language) {
  const row = make("div", { className: "tokens", dir: "auto", lang: language });
  row.setAttribute("role", "listbox");
  row.setAttribute("aria-orientation", "horizontal");
  row.setAttribute("aria-label", label);
  for (const token of tokens) {
    const piece = data.pieces[token.piece];
    const text = piece.startsWith("▁") && piece.length > 1 ? piece.slice(1) : piece;
    token.number = make("sub");
    token.element = make("span", { className: "piece depth", tabIndex: -1 }, text, token.number);
    token.element.setAttribute("role", "option");
    token.element.token = token;
    if (piece.startsWith("▁")) row.append(" ");
    row.append(token.element);
  }
  if (tokens.length) tokens[0].element.tabIndex = 0;
  return row;
}

// Colours a token by its exit, and says it in text.
function paint(token, exit, data) {
  if (token.exit === exit) return;
  token.exit = exit;
  colour(token.element, exit, data.depths);
  token.number.textContent = exit;
  token.element.setAttribute("aria-label", `${spoken(data.pieces[token.piece])}, exit ${exit}`);
}

function colour(element, depth, depths) {
  element.style.setProperty("--d", (100 * (depth - 1)) / Math.max(depths - 1, 1));
}

const asProbability = (value) => (value < 0.0001 && value > 0 ? "<0.0001" : value.toFixed(4));

// Fills the panel with what each exit says of a token.
function describe(token, data) {
  const percent = (value) => `${((100 * value) / data.probability).toFixed(1)} %`;
  const name = spoken(data.pieces[token.piece]);
  const confidence = token.likeliest[token.exit - 1][1] / data.probability;
  document.getElementById("summary").textContent =
    `“${name}”, line ${token.line}, token ${token.position}: exit ${token.exit}, confidence there ` +
    `${asProbability(confidence)}, oracle ${token.oracle}.`;
  document.getElementById("oracle").textContent = token.ofReference
    ? `Oracle: ${data.oracle}.`
    : "Oracle: the first depth that predicts what the last exit predicts.";
  const hasHalting = token.halting.length > 0;
  const heads = ["depth", "confidence", ...(hasHalting ? ["halting"] : []), "this token", "likeliest tokens"];
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col", textContent: text })));
  head.firstChild.className = head.lastChild.className = "list";
  const rows = token.likeliest.map((likeliest, i) => {
    const depth = make("th", { scope: "row", className: "depth", textContent: i + 1 });
    const exits = i + 1 === token.exit;
    if (exits) depth.append(" ", make("small", { textContent: "● exit" }));
    if (i + 1 === token.oracle) depth.append(" ", make("small", { textContent: "◆ oracle" }));
    colour(depth, i + 1, data.depths);
    const list = make("td", { className: "list", lang: data.languages[1] });
    for (let k = 0; k < likeliest.length; k += 2) {
      const share = make("i", { textContent: percent(likeliest[k + 1]) });
      list.append(make("span", {}, make("bdi", { textContent: data.pieces[likeliest[k]] }), " ", share), " ");
    }
    const numbers = [likeliest[1] / data.probability];
    if (hasHalting) numbers.push(i < token.halting.length ? token.halting[i] / data.probability : null);
    numbers.push(Math.exp(token.tokenLl[i] / data.log_likelihood));
    const cells = numbers.map((value) => make("td", { textContent: value === null ? "–" : asProbability(value) }));
    return make("tr", { className: exits ? "exit" : "" }, depth, ...cells, list);
  });
  document.getElementById("at-depths").replaceChildren(make("thead", {}, head), make("tbody", {}, ...rows));
}

// Lets a pointer, a tap or the keyboard choose tokens inside an element.
function choosable(element, data) {
  const panel = document.getElementById("token");
  let chosen = null;
  const choose = (token) => {
    chosen?.element.setAttribute("aria-selected", "false");
    chosen = token;
    token?.element.setAttribute("aria-selected", "true");
    panel.hidden = !token;
    if (token) describe(token, data);
  };
  const close = () => {
    if (panel.contains(document.activeElement)) chosen?.element.focus();
    choose(null);
  };
  const under = (event) => event.target.closest?.(".piece")?.token;
  element.addEventListener("pointerover", (event) => event.pointerType === "mouse" && under(event) && choose(under(event)));
  element.addEventListener("focusin", (event) => {
    const token = under(event);
    if (!token) return;
    for (const other of token.element.parentElement.querySelectorAll("[tabindex='0']")) other.tabIndex = -1;
    token.element.tabIndex = 0;
    choose(token);
  });
  element.addEventListener("click", (event) => under(event) && choose(under(event)));
  element.addEventListener("keydown", (event) => {
    const next = target(event, under(event));
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && chosen && close());
  document.getElementById("close").addEventListener("click", close);
  return { refresh: () => chosen && describe(chosen, data) };
}

// The element that a key leads to from a token.
function target(event, token) {
  if (!token || event.altKey || event.ctrlKey || event.metaKey) return null;
  const row = token.element.parentElement;
  const pieces = [...row.children];
  const onward = getComputedStyle(row).direction === "rtl" ? "ArrowLeft" : "ArrowRight";
  const at = pieces.indexOf(token.element);
  if (event.key === "Home") return pieces[0];
  if (event.key === "End") return pieces.at(-1);
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") return pieces[at + (event.key === onward ? 1 : -1)];
  if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return null;
  const rows = [...document.querySelectorAll("article:not([hidden]) .tokens")];
  const other = rows[rows.indexOf(row) + (event.key === "ArrowDown" ? 1 : -1)];
  return other?.children[Math.min(at, other.children.length - 1)];
}
