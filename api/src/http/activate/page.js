"use strict";

const element = (id) => document.getElementById(id);
const forms = ["sign-in", "enter", "confirm", "done"];
let csrf = null;
let code = new URLSearchParams(location.search).get("user_code") || "";

// One form, and a message: `bad` unless it says otherwise.
function show(form, message, mood = "bad") {
  for (const id of forms) element(id).hidden = id !== form;
  element("account").hidden = form === "sign-in";
  say(message, mood);
  // Not a button: Enter, pressed too often, decides nothing.
  const first = element(form).querySelector("input");
  if (first) first.focus();
}

function say(message, mood) {
  element("message").textContent = message || "";
  element("message").className = mood;
}

async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (body) headers["content-type"] = "application/json";
  if (csrf) headers["x-csrf-token"] = csrf;
  const answer = await fetch(path, {
    method,
    headers,
    credentials: "same-origin",
    body: body && JSON.stringify(body),
  });
  const value = await answer.json().catch(() => ({}));
  return { status: answer.status, value };
}

function signedIn(session) {
  csrf = session.csrf_token;
  element("who").textContent = session.username;
  const lacking = session.totp && session.totp.required && !session.totp.enabled;
  enter(lacking ? "Your role needs a second factor. Enable one first: ask whoever runs this server how." : "");
}

// What the way back from the provider ended in.
const refusals = {
  oidc_no_role: "Your account there has no role here. Ask whoever runs this server.",
  oidc_unknown: "An administrator has to add you first.",
  oidc_name_taken: "Somebody has your name here already. Ask whoever runs this server.",
  oidc_denied: "You were not signed in there.",
  oidc_state: "That took too long, or began elsewhere. Try again.",
  account_disabled: "Your account is disabled.",
  provider_unavailable: "It can't be reached just now. Try again later.",
};

function refusal() {
  const asked = new URLSearchParams(location.search).get("refused");
  if (!asked) return "";
  history.replaceState(null, "", location.pathname);
  return Object.hasOwn(refusals, asked) ? refusals[asked] : "Signing in there did not work.";
}

function enter(message) {
  element("enter").elements.code.value = code;
  show("enter", message);
}

function signIn(message) {
  csrf = null;
  show("sign-in", message);
}

function problem(answer) {
  if (answer.status === 404) return "This code is wrong, was used, or is out of date.";
  if (answer.status === 403 && answer.value.code === "forbidden") return "You may not register devices here.";
  if (answer.status === 403) return "Your session is another one now. Load this page again.";
  return sentence(answer.value.detail || "the server did not answer as expected");
}

function sentence(text) {
  return text[0].toUpperCase() + text.slice(1) + ".";
}

function on(form, act) {
  element(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    const buttons = element(form).querySelectorAll("button");
    for (const button of buttons) button.disabled = true;
    try {
      await act(element(form).elements, event.submitter);
    } catch {
      say("The server can't be reached. Try again.", "bad");
    }
    for (const button of buttons) button.disabled = false;
  });
}

// Asks for a code as well, or no longer.
function secondFactor(fields, wanted) {
  element("second-factor").hidden = !wanted;
  fields.totp.value = "";
}

on("sign-in", async (fields) => {
  const who = { username: fields.username.value, password: fields.password.value };
  if (fields.totp.value) who.code = fields.totp.value.trim();
  const answer = await ask("POST", "/api/v1/session", who);
  const lacking = answer.status === 401 && answer.value.code;
  if (lacking === "totp_required" || lacking === "totp_invalid") {
    secondFactor(fields, true);
    if (lacking === "totp_required") show("sign-in", "One more step: enter a code.", "");
    else show("sign-in", problem(answer));
    return fields.totp.focus();
  }
  fields.password.value = "";
  secondFactor(fields, false);
  if (answer.status === 200) return signedIn(answer.value);
  show("sign-in", answer.status === 401 ? "Wrong user name or password." : problem(answer));
  if (fields.username.value) fields.password.focus();
});

on("enter", async (fields) => {
  code = fields.code.value;
  const answer = await ask("POST", "/activate", { user_code: code });
  if (answer.status === 401) return signIn("Your session has ended.");
  if (answer.status !== 200) return show("enter", problem(answer));
  element("serial").textContent = answer.value.serial;
  element("model").textContent = answer.value.model;
  element("address").textContent = answer.value.address || "unknown";
  show("confirm");
});

on("confirm", async (_, button) => {
  const decision = button ? button.value : "deny";
  const answer = await ask("POST", "/activate", { user_code: code, decision });
  if (answer.status === 401) return signIn("Your session has ended.");
  if (answer.status !== 200) return show("enter", problem(answer));
  code = "";
  const { serial } = answer.value;
  if (decision === "approve") show("done", `${serial} is registered to you.`, "good");
  else show("done", `${serial} was refused.`, "");
});

on("done", async () => enter());

on("account", async () => {
  const answer = await ask("DELETE", "/api/v1/session");
  if (answer.status !== 204 && answer.status !== 401) return say(problem(answer), "bad");
  signIn();
});

// Offers the provider, who is to bring people back here with the code they came with.
async function offerProvider() {
  const { oidc } = (await ask("GET", "/api/v1/session/methods")).value;
  if (!oidc) return;
  const back = code ? `/activate?user_code=${encodeURIComponent(code)}` : "/activate";
  element("provider").href = `${oidc.url}?return_to=${encodeURIComponent(back)}`;
  element("provider-name").textContent = oidc.name;
  element("provider").hidden = false;
}

(async () => {
  try {
    await offerProvider();
    const answer = await ask("GET", "/api/v1/session");
    if (answer.status === 200 && answer.value.csrf_token) signedIn(answer.value);
    else signIn(refusal());
  } catch {
    signIn("The server can't be reached. Try again.");
  }
})();
