// What the page does in the browser itself: enlarging pictures, Enter, pasting, and waiting for answers.
// TEXTS comes from theme.py.
(() => {
  const language = /\/es\/?$/.test(location.pathname) ? "es" : "en";
  document.documentElement.lang = language;
  const text = (key) => TEXTS[language][key];
  let chosen = 0; // the number of the picture that is enlarged

  // The values of an event's inputs, of which the one at an index becomes that number.
  window.withChosen = (values, index) => values.map((value, i) => (i === index ? chosen : value));

  const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

  // The server ends the stream of answers when no job is left. A job that comes just then would wait for its
  // answer on a stream that is over: Gradio hears that it was taken once a stream names it, or none is left.
  const ask = window.fetch.bind(window);
  const streams = new Set(); // those that are open, each the set of the jobs that it has named
  window.fetch = async (...request) => {
    const address = String(request[0].url ?? request[0]);
    if (/\/queue\/data\b/.test(address)) return overheard(request);
    const response = await ask(...request);
    if (/\/queue\/join\b/.test(address) && response.ok) {
      const job = (await response.clone().json()).event_id;
      const named = () => !streams.size || [...streams].some((jobs) => jobs.has(job));
      for (let i = 0; i < 250 && !named(); i++) await pause(20);
    }
    return response;
  };
  async function overheard(request) {
    const jobs = new Set();
    streams.add(jobs);
    try {
      const response = await ask(...request);
      const [theirs, ours] = response.body.tee();
      listen(ours, jobs);
      return new Response(theirs, response);
    } catch (error) {
      streams.delete(jobs);
      throw error;
    }
  }
  async function listen(body, jobs) {
    let last = "";
    try {
      const reader = body.pipeThrough(new TextDecoderStream()).getReader();
      for (let part = await reader.read(); !part.done; part = await reader.read()) {
        last += part.value;
        for (const found of last.matchAll(/"event_id": ?"([^"]+)"/g)) jobs.add(found[1]);
        last = last.slice(-200); // an id may be cut in two
      }
    } catch {} // a stream that breaks off is over, too
    await pause(100); // Gradio reads the end of it in its own time
    streams.delete(jobs);
  }

  // Resolves when the editor can take a picture: while it is built it would load one dozens of times.
  window.editorReady = async () => {
    for (let i = 0; i < 50 && !document.querySelector("#editor canvas")?.offsetParent; i++) await pause(100);
    await pause(500);
    return [null];
  };

  // The names of all tabs in their order, and their buttons: on a narrow page some are in the menu beside.
  const inTabs = (found) => [...(document.querySelector("#tabs .tab-wrapper")?.querySelectorAll(found) ?? [])];
  const tabNames = () => inTabs(".visually-hidden button").map((each) => each.textContent);
  const tabButtons = () => inTabs("[role=tab], .overflow-dropdown button");
  const isOpen = (button) => button.classList.contains("selected");

  // The link to the other language leaves by way of the server, which keeps what is on the page.
  let elsewhere = null;
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.language");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    elsewhere = link.href;
    document.querySelector("#leave").click();
    setTimeout(() => window.goToLanguage(""), 20000); // a server that does not answer holds nobody
  });
  window.goToLanguage = (ticket) => {
    if (!elsewhere) return;
    sessionStorage.setItem("left", ticket);
    const current = tabButtons().find(isOpen)?.textContent;
    sessionStorage.setItem("tab", Math.max(0, tabNames().indexOf(current)));
    location.href = elsewhere;
    elsewhere = null;
  };

  // A page that was left opens its tab as soon as there is one, unless a person has done something before.
  const taken = (key) => {
    const value = sessionStorage.getItem(key) ?? "";
    sessionStorage.removeItem(key);
    return value;
  };
  const ticket = taken("left");
  let wanted = taken("tab");
  const decided = (event) => { if (event.isTrusted) wanted = ""; };
  for (const name of ["pointerdown", "keydown"]) addEventListener(name, decided, { capture: true });
  function openWanted() {
    if (!wanted) return;
    const button = tabButtons().find((each) => each.textContent === tabNames()[wanted]);
    if (button && isOpen(button)) return (wanted = "");
    button?.click(); // again where it comes too early
    setTimeout(openWanted, 20);
  }
  openWanted();

  // Until what was on the page is there, its controls take nothing that would be lost again; the tabs do.
  const panels = () => document.querySelectorAll("#tabs [role=tabpanel]");
  let held = !!ticket;
  function hold() {
    if (!held) return;
    panels().forEach((each) => { each.inert = true; });
    setTimeout(hold, 50);
  }
  hold();
  window.arriving = () => ticket;
  window.arrived = () => {
    held = false;
    panels().forEach((each) => { each.inert = false; });
  };
  setTimeout(window.arrived, 20000); // a server that does not answer holds nobody

  function enlarge(link, image) {
    const dialog = document.createElement("dialog");
    dialog.className = "lightbox";
    const copy = document.createElement("img");
    copy.src = image.src;
    copy.alt = image.alt;
    if (Math.max(image.naturalWidth, image.naturalHeight) <= 128) copy.className = "pixelated";
    const side = Math.max(image.naturalWidth, image.naturalHeight);
    const factor = Math.max(1, Math.floor(512 / side)); // whole, so that all pixels are equally large
    copy.style.width = `${image.naturalWidth * factor}px`;
    const bar = document.createElement("div");
    const add = (element, key, act) => {
      element.textContent = text(key);
      element.className = "lightbox-button";
      if (act) element.addEventListener("click", act);
      bar.append(element);
      return element;
    };
    if (link) {
      const save = add(document.createElement("a"), "save_one");
      save.href = link.href;
      save.download = link.download;
    }
    const grid = image.closest("[data-uses]");
    if (grid) {
      chosen = [...grid.querySelectorAll("img")].indexOf(image);
      const pressing = (id) => () => { dialog.close(); document.querySelector(id).click(); };
      add(document.createElement("button"), "use_in_restore", pressing("#to-restore"));
      add(document.createElement("button"), "use_to_edit", pressing("#to-edit"));
    }
    add(document.createElement("button"), "close", () => dialog.close());
    dialog.append(copy, bar);
    dialog.addEventListener("close", () => { dialog.remove(); (link ?? image).focus?.(); });
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    document.querySelector(".gradio-container").append(dialog);
    dialog.showModal();
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest(".grid a, table.compared a");
    const image = link?.querySelector("img") ?? event.target.closest(".figures img");
    if (!image || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    enlarge(link, image);
  });

  // Enter in a number begins what the tab is for, once the number has been taken over.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !event.target.matches(".submits input[type=number]")) return;
    event.target.blur();
    setTimeout(() => document.querySelector("#generate-button").click(), 100);
  });

  // A picture that is pasted goes where one can be uploaded.
  document.addEventListener("paste", (event) => {
    const files = event.clipboardData?.files;
    const inputs = [...document.querySelectorAll(".picture-upload input[type=file], .small-buttons input[type=file]")];
    const input = inputs.find((each) => each.closest(".picture-upload, .small-buttons").offsetParent);
    if (!files?.length || !input) return;
    input.files = files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });

  // A file that is dropped beside the field must not replace the page.
  for (const name of ["dragover", "drop"]) addEventListener(name, (event) => event.preventDefault());
})();
