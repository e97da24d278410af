// Everything works without this script. It copies to the clipboard, reads files into fields, and shows what is live.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  const source = document.getElementById(button.dataset.copy);
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    const label = [...button.childNodes];
    button.replaceChildren("Copied");
    setTimeout(() => button.replaceChildren(...label), 2000);
  });
}

for (const chooser of document.querySelectorAll("[data-into]")) {
  chooser.hidden = false;
  chooser.addEventListener("change", async () => {
    document.getElementById(chooser.dataset.into).value = await chooser.files[0].text();
  });
}

const table = document.getElementById("login-table");
if (table) {
  const cell = (...parts) => {
    const one = document.createElement("td");
    one.append(...parts);
    return one;
  };
  const result = (why) => {
    const state = document.createElement("span");
    state.className = why === null ? "state good" : "state bad";
    state.textContent = why === null ? "ok" : "refused";
    return cell(state, why === null ? "" : ` ${why}`);
  };
  new EventSource("/events").onmessage = (event) => {
    for (const login of JSON.parse(event.data)) {
      const row = document.createElement("tr");
      row.append(cell("just now"), cell(login.account), cell(login.protocol.toUpperCase()), cell(login.from), result(login.refused));
      table.tBodies[0].prepend(row);
    }
    table.hidden = false;
    document.getElementById("no-logins").hidden = true;
  };
}
