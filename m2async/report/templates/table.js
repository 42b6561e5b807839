"use strict";
// The table of all jobs. Texts from elsewhere only ever become text nodes; the address behind # holds what is shown.
(async () => {
  const SIZES = [25, 50, 100, 250];
  const SHOWN = 40;  // characters of a cell
  const PRINTED = 500;  // rows
  const $ = (id) => document.getElementById(id);
  const about = JSON.parse($("about-data").textContent);
  const STATES = Object.keys(about.states);  // in the order of their numbers
  const RESULTS = ["", "succeeded", "failed", "open"];
  const MARKS = { ...about.states, ...Object.fromEntries(Object.values(about.results).map((mark) => [mark[0], mark])) };

  let data;
  try {
    const packed = Uint8Array.from(atob($("rows-data").textContent), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    data = JSON.parse(await new Response(stream).text());
  } catch (error) {
    $("table-trouble").textContent = `The table cannot be shown: this browser is too old, or the file is damaged (${error}).`;
    $("table-trouble").hidden = false;
    return;
  }
  const { columns, texts } = data;
  const total = columns.key.length;
  const text = (column) => (row) => texts[columns[column][row]];
  const plain = (column) => (row) => columns[column][row];

  // How things are worded

  const visible = (value) => value.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`);
  const number = (value) => value.toLocaleString("en-US");
  const offset = `UTC${about.offset < 0 ? "-" : "+"}${new Date(Math.abs(about.offset) * 6e4).toISOString().slice(11, 16)}`;
  const moment = (millis) => new Date(about.origin * 1e3 + millis + about.offset * 6e4).toISOString().slice(0, 23).replace("T", " ");
  const seconds = (value) => {
    if (value > 0 && value < 1) return `${Math.round(value * 1e3)} ms`;
    if (value < 60) return `${+value.toFixed(value < 10 ? 2 : 1)} s`;
    const whole = Math.round(value);
    const two = (part) => String(part).padStart(2, "0");
    return whole < 3600 ? `${Math.floor(whole / 60)} min ${two(whole % 60)} s`
      : `${Math.floor(whole / 3600)} h ${two(Math.floor(whole / 60) % 60)} min`;
  };
  const between = (from, to) => (row) => {
    const [a, b] = [columns[from][row], columns[to][row]];
    return a === null || b === null ? null : Math.max(0, b - a) / 1e3;
  };
  const took = between("began", "ended");
  const latency = between("sent", "answered");
  const state = (row) => STATES[columns.state[row]];
  const result = (row) => RESULTS[columns.result[row]];

  // Columns: what to sort by, and what a cell shows

  const element = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const bdi = (value, limit = Infinity) => {
    const whole = visible(value);
    return element("bdi", {}, whole.length > limit ? `${whole.slice(0, limit)}…` : whole);
  };
  const badge = (name) => {
    if (!name) return "";
    const [word, mark, kind] = MARKS[name];
    return element("span", { class: `state is-${kind}` }, element("span", { class: "mark", "aria-hidden": "true" }, mark), ` ${word}`);
  };
  const ended = (row) => {
    const found = result(row);
    if (!found) return "";
    const [word, mark, kind] = MARKS[found];
    const status = text("status")(row);
    return element("span", { class: `state is-${kind}` }, element("span", { class: "mark", "aria-hidden": "true" }, mark), " ",
      status ? bdi(status, SHOWN) : "not seen yet", element("span", { class: "visually-hidden" }, ` (${word})`));
  };
  const shown = (value) => (row) => bdi(value(row), SHOWN);
  const COLUMNS = {
    number: { value: plain("number"), cell: (row) => number(columns.number[row]) },
    key: { value: plain("key"), cell: (row) => opener(row) },
    job: { value: text("job"), cell: shown(text("job")) },
    state: { value: plain("state"), cell: (row) => badge(state(row)) },
    status: { value: text("status"), cell: (row) => ended(row) },
    code: { value: text("returnCode"), cell: shown(text("returnCode")) },
    took: { value: took, cell: (row) => took(row) === null ? "" : seconds(took(row)) },
    attempts: { value: plain("attempts"), cell: (row) => number(columns.attempts[row]) },
    sent: { value: plain("sent"), cell: (row) => columns.sent[row] === null ? "" : moment(columns.sent[row]).slice(about.day ? 11 : 0, 19) },
    error: { value: text("code"), cell: shown(text("code")) },
  };
  const heads = [...document.querySelectorAll("#rows thead th")];
  const names = heads.map((head) => head.dataset.column);

  // Which rows, and in what order

  const start = { text: "", state: "", result: "", sort: "number", down: false, page: 1, size: 50, open: null };
  let asked = { ...start };
  let found = [];
  const orders = {};

  const order = (name) => {
    if (!orders[name]) {
      const values = Array.from({ length: total }, (_, row) => COLUMNS[name].value(row));
      const collator = new Intl.Collator("en", { numeric: true });
      const isText = typeof (values.find((value) => value !== null && value !== "") ?? 0) === "string";
      let ranks = values;
      if (isText) {  // each text is compared once
        const sorted = [...new Set(values)].sort(collator.compare);
        const rank = new Map(sorted.map((value, place) => [value, place]));
        ranks = values.map((value) => rank.get(value));
      }
      const empty = (row) => values[row] === null || values[row] === "";
      const rows = values.keys();
      const [full, none] = [[], []];
      for (const row of rows) (empty(row) ? none : full).push(row);
      orders[name] = { full: full.sort((a, b) => ranks[a] - ranks[b] || a - b), none };
    }
    return orders[name];
  };

  let haystacks = null;
  const haystack = () => haystacks ??= Array.from({ length: total }, (_, row) => [
    columns.key[row], text("job")(row), columns.execution[row], columns.request[row], text("status")(row),
    text("code")(row), text("message")(row), text("application")(row),
  ].join("\n").toLowerCase());

  const find = () => {
    const { full, none } = order(asked.sort);
    const needle = asked.text.toLowerCase();
    const wantedState = STATES.indexOf(asked.state);
    const wantedResult = RESULTS.indexOf(asked.result || "-");
    const hay = needle ? haystack() : null;
    const fits = (row) =>
      (wantedState < 0 || columns.state[row] === wantedState) &&
      (asked.state !== "doubt" || (columns.doubts[row] > 0 && state(row) === "started")) &&
      (asked.state !== "together" || (state(row) === "started" && !columns.execution[row])) &&
      (wantedResult < 0 || columns.result[row] === wantedResult) &&
      (!hay || hay[row].includes(needle));
    found = (asked.down ? full.toReversed() : full).concat(none).filter(fits);
  };

  // Showing them

  const body = document.querySelector("#rows tbody");
  const pages = () => Math.max(1, Math.ceil(found.length / asked.size));

  const opener = (row) => {
    const open = asked.open === row;
    const button = element("button", { type: "button", class: "open", "aria-expanded": String(open) }, bdi(columns.key[row], SHOWN));
    if (open) button.setAttribute("aria-controls", "details");
    button.dataset.row = row;
    return button;
  };

  const line = (row) => element("tr", {}, ...names.map((name, place) => name === "key"
    ? element("th", { scope: "row" }, COLUMNS.key.cell(row))
    : element("td", { class: heads[place].className }, COLUMNS[name].cell(row))));

  const address = (row) => {
    const key = columns.key[row];
    return key.isWellFormed() && !key.endsWith("…") ? `#key=${encodeURIComponent(key)}` : `#row=${columns.number[row]}`;
  };

  const details = (row) => {
    const at = (column) => columns[column][row] === null ? "" : `${moment(columns[column][row])} ${offset}`;
    const list = (values) => values && values.length ? values.join("; ") : "";
    const facts = [
      ["Key", columns.key[row]], ["No.", number(columns.number[row])], ["Application", text("application")(row)], ["Job", text("identifier")(row)],
      ["Comes after", list(data.after[row])], ["State", MARKS[state(row)][0]], ["Calls", String(columns.attempts[row])],
      ["Calls in doubt", columns.doubts[row] ? String(columns.doubts[row]) : ""], ["Last call", at("sent")],
      ["Call ended", at("answered")], ["Call took", latency(row) === null ? "" : seconds(latency(row))],
      ["Execution", columns.execution[row] + (columns.adopted[row] ? " (found by looking, not answered)" : "")],
      ["Candidates", list(data.candidates[row])], ["Request id", columns.request[row]], ["Error", text("code")(row)],
      ["Message", text("message")(row)], ["Note", text("note")(row)], ["Status", text("status")(row)],
      ["Return code", text("returnCode")(row)], ["Result", text("reason")(row)], ["Began", at("began")],
      ["Ended", at("ended")], ["Ran for", took(row) === null ? "" : seconds(took(row))],
    ];
    const shownFacts = element("dl", { class: "facts" });
    for (const [name, value] of facts) {
      if (value) shownFacts.append(element("dt", {}, name), element("dd", {}, bdi(value)));
    }
    const history = data.history[row] ?? [];
    if (history.length) {
      shownFacts.append(element("dt", {}, "What happened"), element("dd", {}, element("ol", { class: "plain" }, ...history.map(
        ([at, what]) => element("li", {}, `${moment(at)} ${offset}: `, bdi(texts[what]))))));
    }
    const link = element("a", { href: address(row) }, "Link to this job");
    return element("tr", { class: "details", id: "details" }, element("td", { colspan: names.length }, shownFacts, element("p", { class: "small" }, link)));
  };

  const show = (rows) => body.replaceChildren(...rows.flatMap((row) => asked.open === row ? [line(row), details(row)] : [line(row)]));

  const render = () => {
    asked.page = Math.min(Math.max(1, asked.page), pages());
    const first = (asked.page - 1) * asked.size;
    const page = found.slice(first, first + asked.size);
    show(page);
    for (const head of heads) {
      const sorted = head.dataset.column === asked.sort;
      head.setAttribute("aria-sort", sorted ? (asked.down ? "descending" : "ascending") : "none");
    }
    const of = found.length === total ? "" : ` (of ${number(total)})`;
    $("count").textContent = found.length
      ? `Jobs ${number(first + 1)} to ${number(first + page.length)} of ${number(found.length)}${of}`
      : `No job fits${of}`;
    $("place").textContent = `Page ${number(asked.page)} of ${number(pages())}`;
    $("previous").disabled = asked.page <= 1;
    $("next").disabled = asked.page >= pages();
  };

  // What is asked, and the address that says so

  const controls = { text: $("text"), state: $("state"), result: $("result"), size: $("size") };

  const fill = () => {
    for (const [name, control] of Object.entries(controls)) if (control) control.value = String(asked[name]);
  };

  const write = () => {
    const parts = new URLSearchParams();
    for (const name of ["text", "state", "result", "sort", "page", "size"]) {
      if (asked[name] !== start[name]) parts.set(name, asked[name]);
    }
    if (asked.down) parts.set("down", "1");
    if (asked.open !== null) parts.set("row", columns.number[asked.open]);
    history.replaceState(null, "", `#${String(parts).replaceAll("+", "%20") || "jobs"}`);
  };
  let writing = 0;
  const writeSoon = () => { clearTimeout(writing); writing = setTimeout(write, 300); };  // browsers limit such writes

  const one = (value, allowed, otherwise) => allowed.includes(value) ? value : otherwise;

  const read = () => {
    if (!location.hash.includes("=")) return false;
    const parts = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
    const page = parseInt(parts.get("page"), 10);
    asked = {
      text: parts.get("text") ?? "", state: one(parts.get("state"), [...STATES, "doubt", "together"], ""),
      result: one(parts.get("result"), RESULTS, ""), sort: one(parts.get("sort"), names, "number"),
      down: parts.get("down") === "1", page: page > 0 ? page : 1,
      size: one(parseInt(parts.get("size"), 10), SIZES, start.size), open: null,
    };
    const row = parts.has("key") ? columns.key.indexOf(parts.get("key"))
      : parts.has("row") ? columns.number.indexOf(parseInt(parts.get("row"), 10)) : -1;
    find();
    if (row >= 0) {
      if (!found.includes(row)) { asked = { ...start, size: asked.size }; find(); }
      asked.open = row;
      asked.page = Math.floor(found.indexOf(row) / asked.size) + 1;
    }
    fill();
    render();
    const target = row >= 0 ? body.querySelector("[aria-expanded=true]") : $("jobs-title");
    target.scrollIntoView({ block: row >= 0 ? "center" : "start" });
    if (row >= 0) target.focus({ preventScroll: true });
    return true;
  };

  const change = (changes) => {
    asked = { ...asked, page: 1, open: null, ...changes };
    find();
    render();
    writeSoon();
  };

  controls.text.addEventListener("input", () => change({ text: controls.text.value }));
  for (const name of ["state", "result"]) {
    controls[name]?.addEventListener("change", () => change({ [name]: controls[name].value }));
  }
  controls.size.addEventListener("change", () => change({ size: Number(controls.size.value) }));
  document.querySelector("form.tools").addEventListener("submit", (event) => event.preventDefault());
  $("clear").addEventListener("click", () => { asked = { ...start, size: asked.size }; fill(); change({}); controls.text.focus(); });
  const turn = (by) => () => {
    asked.open = null;
    asked.page += by;
    render();
    writeSoon();
    if (document.activeElement.disabled || document.activeElement === document.body) $(by > 0 ? "previous" : "next").focus();
  };
  $("previous").addEventListener("click", turn(-1));
  $("next").addEventListener("click", turn(1));
  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => {
      const name = head.dataset.column;
      change({ sort: name, down: asked.sort === name && !asked.down });
    });
  }
  body.addEventListener("click", (event) => {
    const button = event.target.closest("button.open");
    if (!button) return;
    const row = Number(button.dataset.row);
    asked.open = asked.open === row ? null : row;
    render();
    body.querySelector(`button[data-row="${row}"]`).focus();
    writeSoon();
  });
  addEventListener("hashchange", read);
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    if (!link) return;
    clearTimeout(writing);  // what was asked before must not take the place of the link's address
    if (link.hash === location.hash) read();  // a link to what is asked already: the address does not change
  });

  // The rows that are found, as a file. A spreadsheet must not take a text for a formula.

  const cell = (value) => {
    const safe = typeof value === "string" && /^[=+\-@\t\r＝＋－＠]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const CSV = {
    number: plain("number"), key: plain("key"), application_id: text("application"), job: text("job"), state,
    execution_id: plain("execution"), attempts: plain("attempts"), adopted: (row) => Boolean(columns.adopted[row]),
    sent: (row) => columns.sent[row] === null ? "" : new Date(about.origin * 1e3 + columns.sent[row]).toISOString(),
    error_code: text("code"), error_message: text("message"), status: text("status"), return_code: text("returnCode"),
    result, seconds: (row) => took(row) ?? "",
  };
  $("csv").addEventListener("click", () => {
    const lines = [Object.keys(CSV), ...found.map((row) => Object.values(CSV).map((value) => value(row)))];
    const file = new Blob(["\ufeff", lines.map((each) => each.map(cell).join(",") + "\r\n").join("")], { type: "text/csv" });
    const link = element("a", { href: URL.createObjectURL(file), download: `${about.run.replace(/[^\p{L}\p{N}._-]+/gu, "_")}.csv` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  });

  // Paper has no pages to turn: it gets the rows that are found, up to a number.

  addEventListener("beforeprint", () => {
    show(found.slice(0, PRINTED));
    $("printed").textContent = found.length > PRINTED
      ? `${number(PRINTED)} of ${number(found.length)} jobs are printed. The page itself has them all.` : "";
    $("printed").hidden = !$("printed").textContent;
  });
  addEventListener("afterprint", () => { $("printed").hidden = true; render(); });

  $("table").hidden = false;
  if (!read()) { find(); render(); }
  setTimeout(haystack, 100);  // so that the first search need not wait for it
})();
