/* The page of the images: two panes, their tools, the keyboard.

   Promises: without this file the page still shows one image at a time; what a hand does with it is kept nowhere but in
   the tab (`viewer_measures.js`). */

import * as geometry from "./viewer_geometry.js";
import { attach } from "./viewer_gestures.js";
import { Cine } from "./viewer_cine.js";
import { Measures } from "./viewer_measures.js";
import { Pane } from "./viewer_pane.js";
import { attachTo } from "./viewer_presentations.js";
import { caution } from "./viewer_overlay.js";
import { Store } from "./viewer_store.js";
import { Tools } from "./viewer_tools.js";

const MEGABYTE = 1 << 20;
const root = document.querySelector("[data-viewer]");
const one = (selector) => root.querySelector(selector);
const all = (selector) => [...root.querySelectorAll(selector)];

const TOOLS = { w: "fenetre", s: "defiler", z: "zoom", p: "deplacer", l: "longueur", a: "angle", e: "ellipse" };

const touch = window.matchMedia && window.matchMedia("(pointer: coarse)").matches;
const saving = Boolean(navigator.connection && navigator.connection.saveData);
const memory = navigator.deviceMemory || 4;
const light = touch || saving || memory <= 2;

const state = { tool: touch ? "defiler" : "fenetre", linked: true, double: false, active: 0 };
const store = new Store({
  budget: (memory <= 2 ? 64 : light ? 96 : 256) * MEGABYTE,
  parallel: light ? 3 : 4,
  arrived: (item) => panes.forEach((pane) => pane.arrived(item)),
});
const series = all("[data-serie]").map((link) => ({
  link, study: link.dataset.etude, uid: link.dataset.serie, label: link.dataset.libelle, keys: link.dataset.cles,
}));
/* SOP Instance UID of each video → its transfer syntax. */
const videos = new Map(all("[data-videos]").flatMap((link) => link.dataset.videos.split(" ").map((it) => it.split("="))));
const measures = new Measures(root.dataset.seance);
const panes = all("[data-pane]").map((part) => new Pane(part, { store, light, measures, videos, changed }));
const cine = new Cine({ pane: () => active(), changed: () => refreshTools() });
const active = () => panes[state.active];
const tools = new Tools(root, {
  pane: active,
  seen: () => ({ tool: state.tool, double: state.double, linkable: linkable(), linked: linked(), playing: cine.playing }),
  shown: (entry) => panes.some((it, i) => it.series === entry && (i === 0 || state.double)),
  series,
});
const refreshTools = () => {
  tools.refresh();
  presentations(active());
};
const presentations = attachTo(one("#presentation"), active, refreshTools);

function changed(pane, what) {
  if (what === "mesure") {
    panes.forEach((it) => it !== pane && it.isImage && it.image.key === pane.image.key && it.redraw());
    return;
  }
  if (what === "image") {
    follow(pane);
    remember(pane);
    announce(pane);
  }
  if (state.double) panes.forEach((it, i) => { it.line = lineOf(panes[1 - i]); if (it !== pane) it.redraw(); });
  warn();
  if (pane === active()) refreshTools();
}

const lineOf = (pane) => (pane.isImage ? pane.image : undefined);

/* The other pane shows what lies nearest to the image that is turned to: by position in the same frame of reference, in
   another one at the distance that a person has set. */
function follow(pane) {
  if (!linked()) return;
  const from = panes.indexOf(pane);
  const other = panes[1 - from];
  const index = sameFrame() ? geometry.nearest(other.images, pane.image) : apart(pane, from, other);
  if (index !== undefined && index !== other.index) other.show(index, { quietly: true });
}

function apart(pane, from, other) {
  const { sense, distance } = state.apart;
  const { along } = pane.image;
  return geometry.nearestPlace(other.images, from === 0 ? sense * along + distance : sense * (along - distance), other.image);
}

const sameFrame = () => geometry.alongside(lineOf(panes[0]), lineOf(panes[1]));
const setApart = () => state.apart && panes.every((pane, i) => pane.series === state.apart.series[i]);
const linkable = () => state.double && geometry.parallel(lineOf(panes[0]), lineOf(panes[1])) !== 0;
const linked = () => Boolean(linkable() && (sameFrame() ? state.linked : setApart()));

/* Link or loosen; what two examinations do not share, a person sets by the two images that he sees. */
function toggleLink() {
  const [one, two] = panes.map(lineOf);
  if (sameFrame()) state.linked = !state.linked;
  else if (setApart()) state.apart = undefined;
  else {
    const sense = geometry.parallel(one, two);
    state.apart = { series: panes.map((pane) => pane.series), sense, distance: two.along - sense * one.along };
  }
  follow(active());
  refreshTools();
}

/* The address names what is seen, so that a page loaded again shows it again; it never names a person. */
function remember(pane) {
  if (pane !== panes[0] || !pane.image) return;
  const address = new URL(window.location.href);
  const { uid, keys } = pane.series;
  address.searchParams.set("serie", uid);
  address.searchParams.set("objet", keys || pane.image.uid);
  if (keys) address.searchParams.set("cles", "1");
  else address.searchParams.delete("cles");
  clearTimeout(state.remembering);
  state.remembering = setTimeout(() => window.history.replaceState(null, "", address), 400);
}

/* Say that another day, or another person, is compared. */
function warn() {
  const seen = (state.double ? panes : panes.slice(0, 1)).map((pane) => pane.image).filter(Boolean);
  const said = seen.length ? caution(seen, root.dataset.naissance) : undefined;
  const part = one("[data-avertissement]");
  part.hidden = !said;
  part.classList.toggle("v-grave", Boolean(said && said.grave));
  if (part.textContent !== (said ? said.words : "")) part.textContent = said ? said.words : "";
}

/* Say where one is, once the stack rests. */
function announce(pane) {
  clearTimeout(state.announcing);
  if (cine.playing) return;
  state.announcing = setTimeout(() => {
    one("[data-annonce]").textContent = `Image ${pane.index + 1} sur ${pane.images.length}`;
  }, 600);
}

function activate(index) {
  if (state.active !== index) {
    cine.stop();
    state.active = index;
  }
  panes.forEach((pane, i) => pane.root.classList.toggle("active", state.double && i === index));
  refreshTools();
}

function open(entry, wanted) {
  const pane = active();
  cine.stop();
  if (entry.link.scrollIntoView) entry.link.scrollIntoView({ block: "nearest", inline: "nearest" });
  pane.open(entry, wanted).then(() => { refreshTools(); cine.recommended(); });
  refreshTools();
}

function setDouble(double) {
  state.double = double;
  root.classList.toggle("double", double);
  panes[1].root.hidden = !double;
  if (double && !panes[1].series && series.length) {
    const current = series.indexOf(panes[0].series);
    const next = series[(current + 1) % series.length];
    panes[1].open(next, next === panes[0].series && panes[0].image ? panes[0].image.uid : undefined).then(refreshTools);
  }
  if (!double) {
    store.wish(panes[1], []);
    panes[0].line = undefined;
    panes[1].series = undefined;
    panes[1].images = [];
  }
  activate(double ? state.active : 0);
  warn();
  panes.forEach((pane) => pane.refresh());
}

/* -- what buttons and keys do ------------------------------------------------------------------------------------ */

const ACTIONS = {
  ajuster: () => active().reset(),
  inverser: () => {
    active().inverted = !active().inverted;
    active().refresh();
    refreshTools();
  },
  tourner: () => turnPicture(geometry.turned),
  miroir: () => turnPicture(geometry.mirrored),
  cine: () => cine.toggle(),
  effacer: () => {
    active().measuresHere().length = 0;
    active().pending = undefined;
    active().measured();
  },
  double: () => {
    tools.open(false);
    setDouble(!state.double);
  },
  lier: () => linkable() && toggleLink(),
  ecran: () => {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (root.requestFullscreen) root.requestFullscreen();
  },
  outils: () => tools.open(),
  aide: () => {
    tools.open(false);
    help(true);
  },
};

function help(open) {
  const box = one("[data-aide]");
  if (open === box.open) return;
  if (open && box.showModal) box.showModal();
  else if (open) box.setAttribute("open", "");
  else if (box.close) box.close();
  else box.removeAttribute("open");
  // From its beginning, not from the button at its end.
  if (open) one("#aide-titre").focus();
}

function chooseTool(tool) {
  active().giveUp();
  state.tool = tool;
  tools.open(false);
  refreshTools();
}

function turnPicture(how) {
  if (!active().isImage) return;
  active().setView(how(active().view));
  refreshTools();
}

function zoomBy(factor) {
  const { width, height } = active().size;
  active().setView(geometry.zoomed(active().view, factor, width / 2, height / 2, width, height));
}

function nudgeWindow(center, width) {
  const pane = active();
  const known = pane.effective;
  if (!known || !pane.image.grey) return;
  const step = Math.max(1, Math.round(known.width / 40));
  pane.setWindow({ ...known, full: false, center: known.center + center * step, width: Math.max(1, known.width + width * step) });
}

function pan(x, y) {
  const { view } = active();
  active().setView({ ...view, x: view.x + x * 30, y: view.y + y * 30 });
}

function turn(steps) {
  const current = series.indexOf(active().series);
  const next = series[current + steps];
  if (next) open(next);
}

const erase = () => {
  active().measuresHere().pop();
  active().measured();
};

const KEYS = {
  arrowup: () => active().move(-1), arrowleft: () => active().move(-1),
  arrowdown: () => active().move(1), arrowright: () => active().move(1),
  pageup: () => active().move(-10), pagedown: () => active().move(10),
  home: () => active().move(-Infinity), end: () => active().move(Infinity),
  " ": ACTIONS.cine, "+": () => zoomBy(1.25), "=": () => zoomBy(1.25), "-": () => zoomBy(0.8), 0: ACTIONS.ajuster, "à": ACTIONS.ajuster,
  x: () => active().setView(geometry.fitted(active().view)), r: ACTIONS.tourner, m: ACTIONS.miroir,
  i: ACTIONS.inverser, d: ACTIONS.double, k: ACTIONS.lier, f: ACTIONS.ecran, "?": ACTIONS.aide, h: ACTIONS.aide,
  n: () => turn(1), b: () => turn(-1), c: () => state.double && focusPane(1 - state.active),
  delete: erase, backspace: erase, escape: () => tools.open(false) || chooseTool(touch ? "defiler" : "fenetre"),
};
const SHIFTED = {
  arrowup: () => nudgeWindow(1, 0), arrowdown: () => nudgeWindow(-1, 0),
  arrowright: () => nudgeWindow(0, 1), arrowleft: () => nudgeWindow(0, -1),
};
const CONTROLLED = { arrowup: () => pan(0, -1), arrowdown: () => pan(0, 1), arrowleft: () => pan(-1, 0), arrowright: () => pan(1, 0) };

function focusPane(index) {
  activate(index);
  panes[index].root.focus();
}

function onKey(event) {
  const key = event.key.toLowerCase();
  if (event.altKey || event.metaKey) return;
  // A list and the help keep their own keys, a link and a button theirs; the slider turns like all the rest.
  if (event.target.closest("select, dialog, video")) return;
  if (event.target.closest("a, button") && (key === " " || key === "enter")) return;
  let act;
  if (event.ctrlKey) act = CONTROLLED[key];
  else if (event.shiftKey && SHIFTED[key]) act = SHIFTED[key];
  // The row of digits of a French keyboard gives signs without the shift key: the physical key counts.
  else if (/^(Digit|Numpad)[1-9]$/.test(event.code) && key !== "-") act = () => tools.preset(Number(event.code.slice(-1)) - 1);
  else if (KEYS[key]) act = KEYS[key];
  else if (TOOLS[key]) act = () => chooseTool(TOOLS[key]);
  if (!act) return;
  event.preventDefault();
  act();
}

function unreadable() {
  const place = document.createElement("span");
  place.className = "v-doc v-none";
  place.textContent = "Illisible";
  return place;
}

/* -- begin ------------------------------------------------------------------------------------------------------- */

function begin() {
  root.classList.add("live");
  for (const part of all("[data-vivant]")) part.hidden = false;
  panes.forEach((pane, index) => {
    attach(pane, { tool: () => state.tool, activate: () => activate(index) });
    pane.root.addEventListener("pointerdown", () => tools.open(false), true);
    pane.root.addEventListener("focusin", () => activate(index));
  });
  for (const button of all("[data-outil]")) button.addEventListener("click", () => chooseTool(button.dataset.outil));
  for (const button of all("[data-action]")) button.addEventListener("click", () => ACTIONS[button.dataset.action]());
  one("#fenetrage").addEventListener("change", (event) => event.target.value !== "" && tools.preset(Number(event.target.value)));
  one("#vitesse").addEventListener("change", (event) => cine.setRate(Number(event.target.value)));
  one("[data-aide-fin]").addEventListener("click", () => help(false));
  for (const entry of series) {
    const thumbnail = entry.link.querySelector("img");
    // A picture that cannot be drawn says so in its pane, and in its place in the list.
    const look = () => thumbnail.complete && !thumbnail.naturalWidth && thumbnail.replaceWith(unreadable());
    if (thumbnail) {
      thumbnail.addEventListener("error", look);
      if (thumbnail.currentSrc) look();
    }
    entry.link.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
      event.preventDefault();
      open(entry);
    });
  }
  root.addEventListener("keydown", onKey);
  const { choisie, objet, cles } = root.dataset;
  const start = series.find((it) => (cles ? it.keys === objet : it.uid === choisie && !it.keys)) || series[0];
  if (!start) return;
  open(start, objet);
  const still = one(".v-still img");
  if (still) panes[0].greet(still);
}

begin();
