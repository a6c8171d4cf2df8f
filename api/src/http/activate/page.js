"use strict";

const element = (id) => document.getElementById(id);
const forms = ["sign-in", "enter", "confirm"];
let csrf = null;
let code = new URLSearchParams(location.search).get("user_code") || "";

function show(form, message) {
  for (const id of forms) element(id).hidden = id !== form;
  element("message").textContent = message || "";
  const first = form && element(form).querySelector("input, button");
  if (first) first.focus();
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
  element("enter").elements.code.value = code;
  show("enter");
}

function problem(answer) {
  if (answer.status === 404) return "This code is wrong, was used, or is out of date.";
  return answer.value.detail || "The server did not answer as expected.";
}

function on(form, act) {
  element(form).addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      await act(element(form).elements, event.submitter);
    } catch {
      element("message").textContent = "The server can't be reached. Try again.";
    }
  });
}

// Asks for a code as well, or no longer.
function secondFactor(fields, wanted) {
  element("second-factor").hidden = !wanted;
  fields.totp.value = "";
}

on("sign-in", async (fields) => {
  const who = { username: fields.username.value, password: fields.password.value };
  if (fields.totp.value) who.code = fields.totp.value;
  const answer = await ask("POST", "/api/v1/session", who);
  const lacking = answer.status === 401 && answer.value.code;
  if (lacking === "totp_required" || lacking === "totp_invalid") {
    secondFactor(fields, true);
    show("sign-in", lacking === "totp_required" ? "Enter a code as well." : problem(answer));
    return fields.totp.focus();
  }
  fields.password.value = "";
  secondFactor(fields, false);
  if (answer.status === 200) signedIn(answer.value);
  else show("sign-in", answer.status === 401 ? "Wrong user name or password." : problem(answer));
});

on("enter", async (fields) => {
  code = fields.code.value;
  const answer = await ask("POST", "/activate", { user_code: code });
  if (answer.status === 401) return show("sign-in", "Your session has ended.");
  if (answer.status !== 200) return show("enter", problem(answer));
  element("serial").textContent = answer.value.serial;
  element("model").textContent = answer.value.model;
  element("address").textContent = answer.value.address || "unknown";
  show("confirm");
});

on("confirm", async (_, button) => {
  const decision = button ? button.value : "deny";
  const answer = await ask("POST", "/activate", { user_code: code, decision });
  if (answer.status === 401) return show("sign-in", "Your session has ended.");
  if (answer.status !== 200) return show("enter", problem(answer));
  code = "";
  const { serial } = answer.value;
  show(null, decision === "approve" ? `${serial} is registered to you.` : `${serial} was refused.`);
});

// Offers the provider, who is to bring people back here with the code they came with.
async function offerProvider() {
  const { oidc } = (await ask("GET", "/api/v1/session/methods")).value;
  if (!oidc) return;
  const back = code ? `/activate?user_code=${encodeURIComponent(code)}` : "/activate";
  element("provider-link").href = `${oidc.url}?return_to=${encodeURIComponent(back)}`;
  element("provider-name").textContent = oidc.name;
  element("provider").hidden = false;
}

(async () => {
  try {
    await offerProvider();
    const answer = await ask("GET", "/api/v1/session");
    if (answer.status === 200 && answer.value.csrf_token) signedIn(answer.value);
    else show("sign-in");
  } catch {
    show("sign-in", "The server can't be reached. Try again.");
  }
})();
