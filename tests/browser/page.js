// A device made of mqtt.js and nothing else: it shows its settings, and tells the test what it shows.
"use strict";

const told = (what) => fetch("/told", { method: "POST", body: JSON.stringify(what) });

(async () => {
  const { broker, rest, username, password, protocolVersion } = await (await fetch("/device")).json();

  // What the page must not be able to do: read another origin's answers.
  const read = await fetch(rest, { headers: { Authorization: `Bearer ${password}` } }).then(
    () => "read",
    () => "kept",
  );
  await told({ rest: read });

  const topic = `devices/${username}/settings`;
  const client = mqtt.connect(broker, {
    clientId: username, username, password, protocolVersion, reconnectPeriod: 0,
  });
  client.on("connect", () => client.subscribe(topic, { qos: 1 }));
  client.on("error", (error) => told({ error: String(error) }));
  client.on("close", () => told({ closed: true }));
  client.on("message", (from, payload) => {
    const { version, settings } = JSON.parse(payload.toString());
    client.publish(`devices/${username}/settings/ack`, JSON.stringify({ version }), { qos: 1 });
    const output = document.querySelector("#settings");
    output.textContent = `${version}: privacyMode ${settings.privacyMode}`;
    told({ shown: output.textContent });
  });
})();
