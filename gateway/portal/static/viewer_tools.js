/* The tools: which is in hand, which can be used now, the windows to choose from.

   Promises: each tool is where a person sees it, or one press of « Outils » away; nothing scrolls sideways. What tools do
   is the page's (`viewer.js`). */

/* Computed tomography's usual windows; an object's own come first. */
const PRESETS = [
  ["Médiastin", 40, 400], ["Poumon", -600, 1500], ["Os", 400, 1800], ["Abdomen", 60, 400], ["Cerveau", 40, 80], ["Foie", 90, 150],
];

export class Tools {
  constructor(root, { pane, seen, shown, series }) {
    this.root = root;
    this.pane = pane;
    this.seen = seen;
    this.shown = shown;
    this.series = series;
    this.box = root.querySelector("[role=toolbar]");
    this.more = root.querySelector("[data-action=outils]");
  }

  one(selector) {
    return this.root.querySelector(selector);
  }

  /* Open the sheet of all tools or close it, without a word the other way; whether anything changed. */
  open(open = !this.opened) {
    if (open === this.opened) return false;
    // A keyboard that stood in the sheet goes on from the button that opens it.
    const inside = !open && this.box.contains(document.activeElement) && document.activeElement.closest(".v-rare");
    this.box.classList.toggle("open", open);
    this.more.setAttribute("aria-expanded", String(open));
    if (inside) this.more.focus({ preventScroll: true });
    return true;
  }

  get opened() {
    return this.box.classList.contains("open");
  }

  refresh() {
    const pane = this.pane();
    const { tool, double, linkable, linked, playing } = this.seen();
    for (const button of this.root.querySelectorAll("[data-outil]")) button.setAttribute("aria-pressed", String(button.dataset.outil === tool));
    this.root.dataset.outil = tool;
    const pressed = { inverser: pane.inverted, miroir: pane.view.mirror, double, lier: linked, cine: playing };
    for (const [action, on] of Object.entries(pressed)) this.one(`[data-action=${action}]`).setAttribute("aria-pressed", String(on));
    this.one("[data-action=lier]").disabled = !linkable;
    this.one("[data-action=cine]").disabled = pane.images.length < 2;
    this.one("[data-action=inverser]").disabled = !pane.isImage || !pane.image.grey;
    for (const action of ["tourner", "miroir"]) this.one(`[data-action=${action}]`).disabled = !pane.isImage;
    for (const entry of this.series) {
      if (this.shown(entry)) entry.link.setAttribute("aria-current", "true");
      else entry.link.removeAttribute("aria-current");
    }
    this.refreshPresets(pane);
  }

  refreshPresets(pane) {
    const select = this.one("#fenetrage");
    const windows = windowsOf(pane);
    const shown = pane.effective;
    const names = windows.map((it, i) => `${it.label}${i < 9 ? `  (${i + 1})` : ""}`);
    if (select.dataset.dit !== names.join("|")) {
      select.dataset.dit = names.join("|");
      select.textContent = "";
      const free = select.appendChild(document.createElement("option"));
      free.textContent = "Réglage libre";
      free.value = "";
      names.forEach((name, i) => {
        const option = select.appendChild(document.createElement("option"));
        option.textContent = name;
        option.value = String(i);
      });
    }
    select.disabled = !windows.length;
    const chosen = windows.findIndex((it) => (it.full ? shown && shown.full : same(it, shown)));
    select.value = chosen < 0 ? "" : String(chosen);
  }

  /* See through a window of the list. */
  preset(index) {
    const pane = this.pane();
    const chosen = windowsOf(pane)[index];
    if (chosen && chosen.full) pane.setWindow(pane.full);
    else if (chosen) pane.setWindow(chosen);
  }
}

/* Windows to choose from: the object's own, the usual ones of a CT, the whole extent. */
function windowsOf(pane) {
  if (!pane.isImage || !pane.image.grey) return [];
  const own = pane.image.windows.map((it, i) => ({ ...it, label: it.label ? capital(it.label) : `De l’image${pane.image.windows.length > 1 ? `, ${i + 1}` : ""}` }));
  const usual = pane.image.modality === "CT" ? PRESETS.map(([label, center, width]) => ({ label, center, width, shape: "LINEAR" })) : [];
  const known = new Set(own.map((it) => `${it.center}/${it.width}`));
  // Worked out when it is chosen: looking at every pixel of every image would slow the stack.
  const full = pane.image.measurable ? [{ label: "Toute l’étendue", full: true }] : [];
  return [...own, ...usual.filter((it) => !known.has(`${it.center}/${it.width}`)), ...full];
}

const capital = (words) => words.charAt(0).toUpperCase() + words.slice(1).toLowerCase();
const same = (a, b) => a && b && a.center === b.center && a.width === b.width;
