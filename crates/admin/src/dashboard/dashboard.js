// Draws /state every two seconds. Counters become rates against the state before.
// Whatever comes from there is set as text (textContent), never as markup.
"use strict";

const INTERVAL_MS = 2000;
const FETCH_TIMEOUT_MS = 10000;
const CHART_POINTS = 150; // five minutes
const RULES_SHOWN = 20;

let before = null; // the last state, with the time it was read at
const history = []; // requests a second, oldest first

const byId = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// ---- figures ----

const list = (value) => (Array.isArray(value) ? value : []);
const count = (value) => (Number.isFinite(value) ? value : 0);
const total = (classes) => Object.values(classes || {}).reduce((sum, n) => sum + count(n), 0);
const sum = (items, of) => items.reduce((all, item) => all + count(of(item)), 0);

function short(n) {
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (n >= size) return (n / (unit === "k" ? 1e3 : size)).toFixed(1) + " " + unit;
  }
  return n >= 100 || Number.isInteger(n) ? String(Math.round(n)) : n.toFixed(1);
}

function bytes(n) {
  for (const [power, unit] of [[4, "TiB"], [3, "GiB"], [2, "MiB"], [1, "KiB"]]) {
    if (n >= 1024 ** power) return (n / 1024 ** power).toFixed(1) + " " + unit;
  }
  return Math.round(n) + " B";
}

function seconds(s) {
  if (s === null) return "–";
  if (s < 0.001) return Math.round(s * 1e6) + " µs";
  if (s < 1) return (s * 1e3).toFixed(s < 0.1 ? 1 : 0) + " ms";
  return s.toFixed(1) + " s";
}

function age(s) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"]];
  for (const [i, [size, unit]] of parts.entries()) {
    if (s < size) continue;
    const [smaller, smallerUnit] = parts[i + 1] || [1, "s"];
    return `${Math.floor(s / size)} ${unit} ${Math.floor((s % size) / smaller)} ${smallerUnit}`;
  }
  return Math.floor(s) + " s";
}

// The program's own time, in seconds since 1970.
const clock = (state) => count(state.started_unix_seconds) + count(state.uptime_seconds);

// The part of a counter that came within the interval; all of it if the program has started again.
const grown = (now, then) => (now >= then ? now - then : now);

function rate(now, then, elapsed) {
  return then === undefined || elapsed === null ? null : grown(now, then) / elapsed;
}

const shownRate = (r) => (r === null ? "–" : short(r));

// The histogram of the interval alone. Where it saw nothing, that of the whole run.
function recent(now, then) {
  const old = new Map(list(then && then.buckets).map(([upper, n]) => [upper, n]));
  const buckets = list(now && now.buckets).map(([upper, n]) => [upper, grown(n, old.get(upper) || 0)]);
  const all = { buckets: list(now && now.buckets), count: count(now && now.count) };
  const part = { buckets, count: grown(all.count, count(then && then.count)) };
  return then && part.count > 0 ? part : all;
}

// As Latency::quantile of the admin crate: straight through the bucket, the last bound beyond it.
function quantile(histogram, q) {
  if (histogram.count === 0) return null;
  const rank = q * histogram.count;
  let below = 0;
  let lower = 0;
  for (const [upper, n] of histogram.buckets) {
    if (n > 0 && below + n >= rank) return lower + ((upper - lower) * (rank - below)) / n;
    below += n;
    lower = upper;
  }
  return lower;
}

// ---- parts of the page ----

// columns: [title, isNumber]; rows: arrays of text, or of [text, className].
function table(id, columns, rows, ifEmpty) {
  const head = element("tr");
  for (const [title, isNumber] of columns) {
    const cell = element("th", title, isNumber ? "number" : "");
    cell.scope = "col";
    head.append(cell);
  }
  const body = element("tbody");
  for (const row of rows) {
    const line = element("tr");
    row.forEach((cell, i) => {
      const [text, className] = Array.isArray(cell) ? cell : [cell, ""];
      const numeric = columns[i] && columns[i][1] ? "number " : "";
      line.append(element("td", String(text), numeric + className));
    });
    body.append(line);
  }
  if (rows.length === 0) {
    const line = element("tr");
    const cell = element("td", ifEmpty, "note");
    cell.colSpan = columns.length;
    line.append(cell);
    body.append(line);
  }
  const thead = element("thead");
  thead.append(head);
  byId(id).replaceChildren(thead, body);
}

const classTexts = (requests) =>
  ["1xx", "2xx", "3xx", "4xx", "5xx"].map((name) => {
    const n = count(requests && requests[name]);
    return [short(n), name === "5xx" && n > 0 ? "bad" : ""];
  });

const CLASS_COLUMNS = ["1xx", "2xx", "3xx", "4xx", "5xx"].map((name) => [name, true]);

function listeners(state, old, elapsed) {
  const previous = new Map(list(old && old.listeners).map((l) => [l.name, l]));
  const rows = list(state.listeners).map((l) => {
    const then = previous.get(l.name);
    const per = (now, was) => rate(count(now), then && count(was(then)), elapsed);
    const moved = per(count(l.received_bytes) + count(l.sent_bytes), (t) => t.received_bytes + t.sent_bytes);
    return [
      l.name, l.address, l.protocol,
      [l.state, l.state === "serving" ? "good" : "warn"],
      shownRate(per(total(l.requests), (t) => total(t.requests))),
      ...classTexts(l.requests),
      short(count(l.connections_open)),
      short(count(l.upgrades_open)),
      moved === null ? "–" : bytes(moved) + "/s",
      short(count(l.refused_requests)),
      short(count(l.tls_handshakes_failed)),
    ];
  });
  const columns = [["Name"], ["Address"], ["Protocol"], ["State"], ["Requests/s", true], ...CLASS_COLUMNS,
    ["Open", true], ["Upgraded", true], ["Traffic", true], ["Refused", true], ["TLS failed", true]];
  table("listeners", columns, rows, "No listeners.");
}

// What an endpoint's health check found; nothing without one.
function healthText(health, now) {
  if (!health) return "";
  const since = `${health.up ? "up" : "down"} for ${age(Math.max(0, now - count(health.since_unix_seconds)))}`;
  if (health.up) return [since, "good"];
  return [health.last_error ? `${since}: ${health.last_error}` : since, "bad"];
}

function upstreams(state, old, elapsed) {
  const now = clock(state);
  const previous = new Map();
  for (const u of list(old && old.upstreams)) {
    for (const e of list(u.endpoints)) previous.set(u.name + "\n" + e.target, e);
  }
  const rows = [];
  for (const u of list(state.upstreams)) {
    const endpoints = list(u.endpoints);
    const how = [u.algorithm, u.tls ? "TLS" : "", u.retries ? short(u.retries) + " retries" : ""];
    const none = endpoints.length === 0;
    rows.push([u.name, [none ? "no endpoints" : how.filter(Boolean).join(", "), none ? "bad" : ""],
      "", "", "", "", "", ""]);
    for (const e of endpoints) {
      const then = previous.get(u.name + "\n" + e.target);
      rows.push([
        [e.target, "inner"], healthText(e.health, now), e.weight,
        shownRate(rate(count(e.requests), then && count(then.requests), elapsed)),
        short(count(e.requests)), short(count(e.in_flight)), short(count(e.idle_connections)),
        [short(count(e.connect_failures)), e.connect_failures > 0 ? "bad" : ""],
      ]);
    }
  }
  const columns = [["Upstream, endpoints"], [""], ["Weight", true], ["Requests/s", true], ["Requests", true],
    ["Under way", true], ["Idle", true], ["Connect failures", true]];
  table("upstreams", columns, rows, "No upstreams.");
  const hidden = count(state.upstreams_total) - list(state.upstreams).length;
  byId("upstreams-note").textContent = hidden > 0 ? `${hidden} less busy ones are not shown.` : "";
}

function rules(state, old, elapsed) {
  const key = (r) => r.listener + "\n" + r.name;
  const previous = new Map(list(old && old.rules).map((r) => [key(r), r]));
  const all = list(state.rules).map((rule) => {
    const then = previous.get(key(rule));
    const perSecond = rate(total(rule.requests), then && total(then.requests), elapsed);
    return { rule, perSecond, latency: recent(rule.latency, then && then.latency) };
  });
  all.sort((a, b) => (b.perSecond || 0) - (a.perSecond || 0));
  const rows = all.slice(0, RULES_SHOWN).map(({ rule, perSecond, latency }) => [
    rule.name, rule.listener, rule.upstream, shownRate(perSecond), ...classTexts(rule.requests),
    seconds(quantile(latency, 0.5)), seconds(quantile(latency, 0.99)),
  ]);
  const columns = [["Rule"], ["Listener"], ["Upstream"], ["Requests/s", true], ...CLASS_COLUMNS,
    ["p50", true], ["p99", true]];
  table("rules", columns, rows, "No rules.");
  const hidden = count(state.rules_total) - rows.length;
  byId("rules-note").textContent = hidden > 0 ? `${hidden} less busy ones are not shown.` : "";
}

function problems(config) {
  const found = list(config && config.problems);
  byId("problems").hidden = found.length === 0;
  byId("problem-list").replaceChildren(...found.map((p) => {
    const key = p.key ? `${p.key}: ` : "";
    const value = p.value ? `, found ${p.value}` : "";
    const expected = p.expected ? `, expected ${p.expected}` : "";
    const line = element("li", "", p.severity === "error" ? "bad" : "warn");
    line.append(element("code", p.place), ` ${p.severity}: ${key}${p.problem}${value}${expected}`);
    return line;
  }));
}

// The cluster that routes come from, if they do.
function kubernetes(state) {
  const cluster = state.kubernetes;
  byId("kubernetes").hidden = !cluster;
  if (!cluster) return;
  const changed = count(cluster.last_change_unix_seconds);
  const word = (text, className) => element("span", text, className);
  byId("kubernetes-summary").replaceChildren(
    element("code", cluster.server), ": ",
    cluster.connected ? word("connected", "good") : word("not connected: what was served goes on", "bad"),
    cluster.leader ? ", writes status and Events" : ", another replica (or none) writes status and Events",
    cluster.from_state ? word(", the state on disk is served", "warn") : "",
    `. ${short(count(cluster.rules))} rules, ${short(count(cluster.upstreams))} upstreams and ` +
      `${short(count(cluster.certificates))} certificates, `,
    changed ? `changed ${age(Math.max(0, clock(state) - changed))} ago.` : "nothing served yet.",
  );
  const rows = list(cluster.watches).map((w) => {
    const how = w.connected ? ["followed", "good"] : [w.error || (w.listed ? "lost" : "not listed yet"), "bad"];
    return [w.kind, w.namespace || "all namespaces", how, short(count(w.objects)), short(count(w.restarts))];
  });
  const columns = [["Kind"], ["Namespace"], ["Watch"], ["Objects", true], ["Restarts", true]];
  table("watches", columns, rows, "Nothing is watched.");
  const wrong = list(cluster.objects_with_problems);
  byId("objects").hidden = wrong.length === 0;
  table("objects", [["Object"], ["Reason"], ["What is wrong"]],
    wrong.map((p) => [p.place, [p.key, "warn"], p.problem]), "");
  const hidden = count(cluster.problems) - wrong.length;
  byId("objects-note").textContent = hidden > 0 ? `${hidden} more problems are not shown.` : "";
}

function tiles(state, old, perSecond) {
  const config = state.config || {};
  const latency = recent(state.latency, old && old.latency);
  const reloaded = count(config.last_reload_unix_seconds);
  const ago = Math.max(0, clock(state) - reloaded);
  const reload = reloaded ? `${config.last_reload_result}, ${age(ago)} ago` : "none yet";
  const tile = (value, name, className) => {
    const made = element("div", undefined, "tile");
    made.append(element("strong", value, className), element("span", name));
    return made;
  };
  byId("tiles").replaceChildren(
    tile(shownRate(perSecond), "requests a second"),
    tile(short(sum(list(state.listeners), (l) => l.connections_open)), "open connections"),
    tile(seconds(quantile(latency, 0.5)), "p50 latency"),
    tile(seconds(quantile(latency, 0.9)), "p90 latency"),
    tile(seconds(quantile(latency, 0.99)), "p99 latency"),
    tile(config.valid ? "valid" : "invalid", "configuration", config.valid ? "good" : "bad"),
    tile(reload, "last reload", config.last_reload_result === "invalid" ? "bad" : ""),
  );
}

function chart() {
  const highest = Math.max(1, ...history);
  const points = history.map((value, i) => {
    const x = 600 - ((history.length - 1 - i) * 600) / (CHART_POINTS - 1);
    return `${x.toFixed(1)},${(78 - (value * 74) / highest).toFixed(1)}`;
  });
  byId("chart").querySelector("polyline").setAttribute("points", points.join(" "));
}

function summary(state) {
  const reasons = list(state.not_ready_reasons).join("; ");
  const ready = state.ready ? "ready" : "not ready" + (reasons ? `: ${reasons}` : "");
  const line = byId("summary");
  line.className = state.ready ? "" : "warn";
  line.textContent = `Version ${state.version}, up ${age(count(state.uptime_seconds))}, ${ready}. ` +
    `Configuration ${count(state.generation)} from ${(state.config || {}).source || "nowhere"}.`;
}

// A mesh knows connections, not requests. A controller beside a gateway has no listeners at all.
function onlyWhatThereIs(state) {
  const speaksHttp = list(state.listeners).some((l) => l.protocol !== "tcp");
  for (const id of ["requests", "busiest"]) byId(id).hidden = !speaksHttp;
}

function draw(state, at) {
  const sameRun = before && before.state.started_unix_seconds === state.started_unix_seconds;
  const old = sameRun ? before.state : null;
  const elapsed = sameRun ? Math.max(0.001, (at - before.at) / 1000) : null;
  const requests = (of) => sum(list(of.listeners), (l) => total(l.requests));
  const perSecond = old ? rate(requests(state), requests(old), elapsed) : null;
  if (perSecond !== null) history.push(perSecond);
  while (history.length > CHART_POINTS) history.shift();
  summary(state);
  problems(state.config);
  kubernetes(state);
  tiles(state, old, perSecond);
  chart();
  listeners(state, old, elapsed);
  upstreams(state, old, elapsed);
  rules(state, old, elapsed);
  onlyWhatThereIs(state);
  before = { state, at };
}

// ---- the clock ----

async function refresh() {
  try {
    const signal = AbortSignal.timeout(FETCH_TIMEOUT_MS);
    const response = await fetch("state", { cache: "no-store", signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    draw(await response.json(), performance.now());
  } catch (error) {
    const line = byId("summary");
    line.className = "bad";
    line.textContent = `No answer from this admin port (${error.message}). Trying again.`;
  }
}

async function run() {
  for (;;) {
    if (!document.hidden) await refresh();
    await new Promise((done) => setTimeout(done, INTERVAL_MS));
  }
}

run();
