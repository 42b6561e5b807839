"use strict";
// The page's parts come as events, rendered and escaped by the server; its controls send what is to be done.
(() => {
  const page = document.getElementById("dashboard");
  const connection = document.getElementById("connection");
  let source = null;

  // A part replaces the content of its element; what it is made of cannot run anything, by the page's policy.
  function show(name, html) {
    const place = document.querySelector(`[data-live="${name}"]`);
    if (!place) return;
    const held = place.contains(document.activeElement) && document.activeElement.getAttribute("href");
    place.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    if (held) [...place.querySelectorAll("a")].find((link) => link.getAttribute("href") === held)?.focus();
  }

  function connected(text, lost) {
    connection.querySelector(".words").textContent = text;
    connection.classList.toggle("lost", lost);
  }

  // Browsers hold six connections to a server, whatever the number of tabs: only a page that is seen has one.
  function listen() {
    if (source || document.hidden) return;
    source = new EventSource(page.dataset.events);
    source.onopen = () => connected("live", false);
    source.onmessage = (message) => {
      const {controls: state, ...parts} = JSON.parse(message.data);
      for (const [name, html] of Object.entries(parts)) show(name, html);
      if (state) allow(state);
    };
    source.onerror = () => connected(
      source.readyState === EventSource.CLOSED
        ? "connection lost: is m2async dashboard still running? If it was started again, open the URL that it printed"
        : "connection lost; trying again", true);
  }

  function leave() {
    if (source) source.close();
    source = null;
  }

  document.addEventListener("visibilitychange", () => document.hidden ? leave() : listen());
  addEventListener("pagehide", leave);
  addEventListener("pageshow", listen);
  listen();

  // Controls
  const said = document.getElementById("said");
  const pause = document.getElementById("pause");
  const pace = document.getElementById("pace");

  function allow(state) {
    for (const control of document.querySelectorAll("[data-needs]")) control.disabled = !state[control.dataset.needs];
    pause.dataset.act = state.paused ? "unpause" : "pause";
    pause.textContent = state.paused ? "Go on" : "Pause";
    document.getElementById("standing").className = `card verdict ${state.kind}`;
    if (!pace.rate.value && state.rate) {
      pace.rate.value = state.rate;
      pace.burst.value = state.burst;
    }
  }

  async function act(what, members = {}) {
    let answer;
    try {
      const response = await fetch(`run/${what}${location.search}`, {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(members),
      });
      answer = await response.json();
    } catch {
      answer = {error: "The dashboard did not answer: it is not known whether that was done."};
    }
    said.textContent = answer.error ?? answer.said;
    said.classList.toggle("trouble", "error" in answer);
  }

  if (!pace) return;
  pace.addEventListener("submit", (event) => {
    event.preventDefault();
    act("pace", {rate: pace.rate.valueAsNumber, burst: pace.burst.valueAsNumber});
  });
  document.addEventListener("click", (event) => {
    const {act: what, opens, closes} = event.target.dataset;
    if (opens) document.getElementById(opens).showModal();
    if (closes || (what && event.target.closest("dialog"))) event.target.closest("dialog").close();
    if (what) act(what);
  });
})();
