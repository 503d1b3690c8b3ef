/* Mouse, pen and fingers on a pane.

   Promises: one finger or the left button does what the chosen tool says; two fingers zoom and move whatever the tool;
   the wheel turns the stack, with Ctrl it zooms; the middle button moves and the right one zooms. A gesture that the
   browser takes away, or during which the screen is turned, ends there: no finger that is gone is waited for. */

import * as geometry from "./viewer_geometry.js";
import { KINDS, handle } from "./viewer_measures.js";

const BUTTONS = { 1: "deplacer", 2: "zoom" };
const WHEEL_PX = 60;
const TAP_MS = 400;
const TAP_PX = 30;

export function attach(pane, { tool, activate }) {
  const { canvas } = pane;
  const fingers = new Map();
  let gesture;
  let turned = 0;
  let span = 0;
  let tapped;

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  const inImage = (point) => {
    const { width, height } = pane.size;
    return geometry.toImage(pane.image, geometry.place(pane.image, pane.view, width, height), point.x, point.y);
  };

  const forget = () => {
    if (gesture && gesture.drop) gesture.drop();
    gesture = undefined;
    fingers.clear();
  };
  /* Whether the pane is no more as it was when the finger came down. */
  const turnedOver = () => {
    const over = fingers.size > 0 && pane.size.width !== span;
    if (over) forget();
    return over;
  };

  canvas.addEventListener("pointerdown", (event) => {
    activate();
    if (!pane.isImage) return;
    // The first finger of a hand: what is held yet was lifted unseen.
    if (event.isPrimary) forget();
    if (!fingers.size) span = pane.size.width;
    const point = at(event);
    fingers.set(event.pointerId, point);
    if (canvas.setPointerCapture) canvas.setPointerCapture(event.pointerId);
    if (fingers.size === 2) {
      if (gesture && gesture.drop) gesture.drop();
      gesture = undefined;
      tapped = undefined;
    } else if (fingers.size === 1) {
      const chosen = event.pointerType === "mouse" ? BUTTONS[event.button] || tool() : tool();
      gesture = { ...begin(chosen, point, event.pointerType), from: point };
    }
    event.preventDefault();
    pane.root.focus({ preventScroll: true });
  });

  canvas.addEventListener("pointermove", (event) => {
    const point = at(event);
    if (event.pointerType === "mouse") {
      pane.probe = point;
      if (!gesture && pane.isImage && pane.pixels) pane.redraw();
    }
    if (turnedOver()) return;
    if (!fingers.has(event.pointerId)) {
      if (pane.pending && gesture === undefined && event.pointerType !== "touch") follow(point);
      return;
    }
    const before = fingers.get(event.pointerId);
    if (fingers.size === 2) pinch(event.pointerId, before, point);
    fingers.set(event.pointerId, point);
    if (fingers.size === 1 && gesture) gesture.move(point);
  });

  const end = (event) => {
    if (turnedOver()) return;
    const point = at(event);
    if (fingers.delete(event.pointerId) && gesture && !fingers.size) {
      if (gesture.end) gesture.end(point);
      if (event.pointerType === "touch") tap(event, point, gesture.from);
      gesture = undefined;
    }
    if (fingers.size === 1) gesture = undefined;
  };
  canvas.addEventListener("pointerup", end);
  canvas.addEventListener("pointercancel", forget);
  canvas.addEventListener("pointerleave", () => {
    pane.probe = undefined;
    pane.redraw();
  });
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => pane.setView(geometry.fitted(pane.view)));

  pane.root.addEventListener(
    "wheel",
    (event) => {
      if (event.target.closest("[data-part=message]")) return;
      event.preventDefault();
      activate();
      const { x, y } = at(event);
      const distance = event.deltaY * (event.deltaMode === 1 ? 40 : event.deltaMode === 2 ? 400 : 1);
      if (event.ctrlKey && pane.isImage) {
        pane.setView(geometry.zoomed(pane.view, Math.exp(-distance / 300), x, y, pane.size.width, pane.size.height));
        return;
      }
      // A notch of a wheel is one image; the small steps of a touch pad are added up.
      if (Math.abs(distance) >= WHEEL_PX) {
        turned = 0;
        pane.move(Math.sign(distance));
      } else {
        turned += distance;
        if (Math.abs(turned) >= WHEEL_PX) {
          pane.move(Math.sign(turned));
          turned = 0;
        }
      }
    },
    { passive: false },
  );

  /* Two taps at one place: a browser that zooms no page makes no double click of them everywhere. */
  function tap(event, point, from) {
    const near = (a, b) => Math.hypot(a.x - b.x, a.y - b.y) < TAP_PX;
    if (!near(point, from)) tapped = undefined;
    else if (tapped && event.timeStamp - tapped.at < TAP_MS && near(point, tapped.point)) {
      tapped = undefined;
      pane.setView(geometry.fitted(pane.view));
    } else tapped = { at: event.timeStamp, point };
  }

  function pinch(id, before, point) {
    const other = [...fingers].find(([key]) => key !== id)[1];
    const spread = (p) => Math.max(10, Math.hypot(p.x - other.x, p.y - other.y));
    const middle = { x: (point.x + other.x) / 2, y: (point.y + other.y) / 2 };
    const { width, height } = pane.size;
    const view = geometry.zoomed(pane.view, spread(point) / spread(before), middle.x, middle.y, width, height);
    pane.setView({ ...view, x: view.x + (point.x - before.x) / 2, y: view.y + (point.y - before.y) / 2 });
  }

  function begin(chosen, start, pointer) {
    if (KINDS[chosen]) return pane.image.presented ? { move: () => {} } : measure(chosen, start, pointer);
    const { index, view } = pane;
    const { width, height } = pane.size;
    const known = pane.effective || { center: 128, width: 256, shape: "LINEAR" };
    const per = Math.max(3, Math.min(24, height / (2 * pane.images.length)));
    const grain = Math.max(known.width / 256, 0.01);
    const moves = {
      fenetre: (p) => {
        if (!pane.image.grey) return;
        const asked = { center: known.center + (p.y - start.y) * grain, width: known.width + (p.x - start.x) * grain };
        const width = tidy(Math.max(asked.width, grain));
        // The linear function is not defined below a width of one. [PS3.3 C.11.2.1.2.1]
        const shape = known.shape === "LINEAR" && width < 1 ? "LINEAR_EXACT" : known.shape;
        pane.setWindow({ shape, center: tidy(asked.center), width });
      },
      defiler: (p) => {
        const wanted = index + Math.round((p.y - start.y) / per);
        const next = Math.min(pane.images.length - 1, Math.max(0, wanted));
        if (next !== pane.index) pane.show(next);
      },
      zoom: (p) => pane.setView(geometry.zoomed(view, Math.exp((start.y - p.y) / 150), start.x, start.y, width, height)),
      deplacer: (p) => pane.setView({ ...view, x: view.x + p.x - start.x, y: view.y + p.y - start.y }),
    };
    return { move: moves[chosen] || (() => {}) };
  }

  function measure(kind, start, pointer) {
    const list = pane.measuresHere();
    if (pane.pending) {
      const pending = pane.pending;
      const set = (p) => setPoint(pending, 2, p);
      set(start);
      return { move: set, end: (p) => { set(p); pane.pending = undefined; pane.refresh(); } };
    }
    const held = handle(list, pane.image, pane.view, pane.size, start.x, start.y, pointer === "mouse" ? 10 : 24);
    if (held) return { move: (p) => setPoint(held.measure, held.index, p) };
    const made = { kind, points: [inImage(start), inImage(start)] };
    list.push(made);
    const drop = () => { list.splice(list.indexOf(made), 1); pane.measured(); };
    return {
      drop,
      move: (p) => setPoint(made, 1, p),
      end: (p) => {
        if (Math.hypot(p.x - start.x, p.y - start.y) < 4) drop();
        else if (KINDS[kind] === 3) pane.pending = made;
      },
    };
  }

  function setPoint(made, index, point) {
    made.points[index] = inImage(point);
    pane.measured();
  }

  /* The second arm of an angle follows the mouse until it is set. */
  function follow(point) {
    if (pane.measuresHere().includes(pane.pending)) setPoint(pane.pending, 2, point);
    else pane.giveUp();
  }
}

/* A window's figures as people write them: whole, or four digits when it is narrow. */
const tidy = (value) => (Math.abs(value) >= 20 ? Math.round(value) : Number(value.toPrecision(4)));
