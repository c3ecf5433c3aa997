// The page's behaviour: it lists, adds and streams users, and times every call.

const SHOWN_CALLS = 12;
const find = (id) => document.getElementById(id);
const status = (text) => { find("status").textContent = text; };
const milliseconds = (value) => value === undefined ? "–" : value.toFixed(1);

let source = null;

// --- calls -------------------------------------------------------------------------

async function call(name, url, options) {
  const began = performance.now();
  let response, body;
  try {
    response = await fetch(url, options);
    body = await response.json();
  } catch {
    body = { message: "The gateway gave no answer." };
  }
  record(name, serviceTime(response), performance.now() - began);
  return { ok: Boolean(response?.ok), body };
}

function serviceTime(response) {
  const [, text] = response?.headers.get("Server-Timing")?.match(/dur=([\d.]+)/) ?? [];
  return text === undefined ? undefined : Number(text);
}

function record(name, service, browser) {
  const row = find("calls").insertRow(0);
  for (const text of [name, milliseconds(service), milliseconds(browser)]) {
    row.insertCell().textContent = text;
  }
  while (find("calls").rows.length > SHOWN_CALLS) find("calls").deleteRow(-1);
}

// --- users -------------------------------------------------------------------------

function show(user, highlight) {
  const row = find("users").insertRow();
  for (const text of [user.name, user.email, user.welcomed ? "✓ yes" : "not yet"]) {
    row.insertCell().textContent = text;
  }
  if (highlight) row.className = "arrived";
}

async function list(highlight) {
  stopStream();
  const { ok, body } = await call("list", "/api/users");
  if (!ok) return status(body.message);
  find("users").replaceChildren();
  for (const user of body) show(user, user.id === highlight);
  status("");
  await count();
}

async function count() {
  const { ok, body } = await call("count", "/api/users/count");
  if (ok) find("count").textContent = body;
}

// --- adding ------------------------------------------------------------------------

const FIELDS = ["name", "email"];

async function add(event) {
  event.preventDefault();
  const form = find("add");
  const options = { method: "POST", body: new FormData(form) };
  const { ok, body } = await call("create", form.action, options);
  showErrors(ok ? {} : errorsOf(body));
  if (!ok) return;
  form.reset();
  find("name").focus();
  await list(body.id);
  status(`${body.name} was added.`);
}

function errorsOf(body) {
  const errors = {};
  for (const { path, message } of body.errors ?? []) {
    errors[FIELDS.includes(path) ? path : "form"] ??= message;
  }
  return Object.keys(errors).length ? errors : { form: body.message };
}

function showErrors(errors) {
  for (const name of [...FIELDS, "form"]) {
    find(`${name}-error`).textContent = errors[name] ?? "";
  }
  for (const name of FIELDS) {
    find(name).setAttribute("aria-invalid", String(name in errors));
  }
  const first = FIELDS.find((name) => name in errors);
  if (first) find(first).focus();
}

// --- streaming ---------------------------------------------------------------------

function toggleStream() {
  if (source) {
    stopStream();
    return status("Stopped.");
  }
  find("users").replaceChildren();
  find("stream").textContent = "Stop";
  status("Streaming…");
  const began = performance.now();
  let last = began;
  let items = 0;
  source = new EventSource("/api/users/stream");
  source.onmessage = ({ data }) => {
    const { user, ms } = JSON.parse(data);
    show(user, true);
    items += 1;
    record(`stream, item ${items}`, ms, performance.now() - last);
    last = performance.now();
  };
  source.addEventListener("end", () => {
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    stopStream();
    status(`${items} users arrived one by one, in ${seconds} s.`);
  });
  source.addEventListener("failed", ({ data }) => {
    stopStream();
    status(JSON.parse(data).message);
  });
  source.onerror = () => {  // it would begin anew by itself
    stopStream();
    status("The stream was cut.");
  };
}

function stopStream() {
  source?.close();
  source = null;
  find("stream").textContent = "Stream";
}

find("reload").addEventListener("click", () => list());
find("stream").addEventListener("click", toggleStream);
find("add").addEventListener("submit", add);
list();
