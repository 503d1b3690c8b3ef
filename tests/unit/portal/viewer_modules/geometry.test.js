// Lengths, angles, letters and planes: values worked out on paper.
import assert from "node:assert/strict";
import { test } from "node:test";

import * as geometry from "./viewer_geometry.js";

const AXIAL = {
  kind: "image", rows: 100, columns: 200, ratio: 2, spacing: { row: 1, column: 0.5, note: "" }, reference: "1.9",
  row: [1, 0, 0], column: [0, 1, 0], normal: [0, 0, 1], position: [0, 0, 0], along: 0,
};
const close = (found, expected) => assert.ok(Math.abs(found - expected) < 1e-9, `${found} is not ${expected}`);

test("a length is in millimetres, each direction by its own spacing", () => {
  // 6 columns of 0.5 mm and 4 rows of 1 mm: the hypotenuse of 3 and 4.
  close(geometry.length(AXIAL, { x: 10, y: 10 }, { x: 16, y: 14 }), 5);
  assert.equal(geometry.lengthText(AXIAL, { x: 10, y: 10 }, { x: 16, y: 14 }), "5,0\u00a0mm");
  const blind = { ...AXIAL, spacing: undefined, ratio: 1 };
  assert.equal(geometry.lengthText(blind, { x: 0, y: 0 }, { x: 3, y: 4 }), "5\u00a0px");
  const film = { ...AXIAL, spacing: { ...AXIAL.spacing, note: "au détecteur" } };
  assert.equal(geometry.lengthText(film, { x: 0, y: 0 }, { x: 4, y: 0 }), "2,0\u00a0mm (au détecteur)");
});

test("angles and surfaces too", () => {
  close(geometry.angle(AXIAL, { x: 0, y: 0 }, { x: 10, y: 0 }, { x: 0, y: 3 }), 90);
  close(geometry.angle(AXIAL, { x: 0, y: 0 }, { x: 10, y: 0 }, { x: 10, y: 5 }), 45); // 5 mm across, 5 mm down
  close(geometry.ellipseArea(AXIAL, { x: 0, y: 0 }, { x: 20, y: 10 }), 25 * Math.PI); // 10 mm × 10 mm
  assert.equal(geometry.areaText(AXIAL, { x: 0, y: 0 }, { x: 20, y: 10 }), "78,5\u00a0mm²");
});

test("letters of the patient at the edges of the picture", () => {
  assert.deepEqual(geometry.edges(AXIAL), { left: "R", right: "L", top: "A", bottom: "P" });
  assert.deepEqual(geometry.edges({ ...AXIAL, row: [0, 1, 0], column: [0, 0, -1] }), { left: "A", right: "P", top: "H", bottom: "F" });
  const oblique = { ...AXIAL, row: [Math.SQRT1_2, Math.SQRT1_2, 0], column: [0, 0, -1] };
  assert.equal(geometry.edges(oblique).right, "LP");
  assert.deepEqual(geometry.edges({ facing: ["A", "F"] }), { left: "P", right: "A", top: "H", bottom: "F" });
  assert.equal(geometry.edges({ facing: ["A"] }), undefined);
  assert.equal(geometry.edges({}), undefined);
});

test("a picture fits its pane in square millimetres, and a zoom keeps the point under the hand", () => {
  // 200 columns of 0.5 mm, 100 rows of 1 mm: a square.
  const box = geometry.place(AXIAL, geometry.FITTED, 600, 400);
  assert.deepEqual([box.left, box.top, box.width, box.height], [100, 0, 400, 400]);
  const before = geometry.toImage(AXIAL, box, 250, 100);
  assert.deepEqual(before, { x: 75, y: 25 });
  const view = geometry.zoomed(geometry.FITTED, 2, 250, 100, 600, 400);
  const after = geometry.toImage(AXIAL, geometry.place(AXIAL, view, 600, 400), 250, 100);
  close(after.x, 75);
  close(after.y, 25);
});

test("the bar is the longest round length that has room", () => {
  const box = geometry.place(AXIAL, geometry.FITTED, 600, 400); // 2 screen pixels a column: 4 a millimetre
  assert.deepEqual(geometry.scaleBar(AXIAL, box, 210), { pixels: 200, label: "5\u00a0cm" });
  assert.equal(geometry.scaleBar({ ...AXIAL, spacing: undefined }, box, 210), undefined);
});

test("the nearest parallel slice of the same frame of reference", () => {
  const at = (z, more = {}) => ({ ...AXIAL, position: [7, 7, z], along: z, ...more });
  const stack = [at(0), at(-10), at(-20)];
  assert.equal(geometry.nearest(stack, at(-14)), 1);
  assert.equal(geometry.nearest(stack, at(-16)), 2);
  assert.equal(geometry.nearest(stack, at(-14, { normal: [0, 0, -1], along: 14 })), 1, "the other sense is parallel too");
  assert.equal(geometry.nearest(stack, at(-14, { reference: "1.8" })), undefined);
  assert.equal(geometry.nearest(stack, at(-14, { normal: [1, 0, 0] })), undefined);
});

test("where a sagittal plane cuts an axial picture", () => {
  const sagittal = { ...AXIAL, row: [0, 1, 0], column: [0, 0, -1], normal: [-1, 0, 0], position: [24.75, 0, 50] };
  // The centre of the first pixel lies at 0, columns are 0.5 mm wide: 24.75 mm is column 49.5 + a half.
  const [a, b] = geometry.cut(AXIAL, sagittal);
  assert.deepEqual([a, b].sort((p, q) => p.y - q.y), [{ x: 50, y: 0 }, { x: 50, y: 100 }]);
  assert.equal(geometry.cut(AXIAL, { ...sagittal, position: [500, 0, 0] }), undefined);
  assert.equal(geometry.cut(AXIAL, AXIAL), undefined);
});

test("what is asked for first lies ahead, then behind", () => {
  assert.deepEqual(geometry.around(4, 8), [4, 5, 6, 3, 7, 2, 1, 0]);
  assert.deepEqual(geometry.around(4, 8, false), [4, 3, 2, 5, 1, 0, 6, 7]);
  assert.deepEqual(geometry.around(0, 1), [0]);
});

test("a picture that is turned or mirrored keeps its letters, its points and its figures", () => {
  const { turned, mirrored, FITTED } = geometry;
  const right = turned(FITTED);
  // A quarter clockwise: what was above is now at the right.
  assert.deepEqual(geometry.edges(AXIAL, right), { top: "R", right: "A", bottom: "L", left: "P" });
  assert.deepEqual(geometry.edges(AXIAL, mirrored(FITTED)), { left: "L", right: "R", top: "A", bottom: "P" });
  // What is seen turns clockwise from a mirror image too.
  assert.deepEqual(geometry.edges(AXIAL, turned(mirrored(FITTED))), { top: "L", right: "A", bottom: "R", left: "P" });
  assert.deepEqual(turned(turned(turned(turned(FITTED)))), { ...FITTED });
  // 200 × 100 columns and rows of 0.5 × 1 mm are a square of 400 points: the first pixel's corner goes to the upper right.
  const wide = { ...AXIAL, spacing: { row: 0.5, column: 0.5, note: "" }, ratio: 1 };
  const box = geometry.place(wide, right, 400, 400);
  assert.deepEqual([box.left, box.top, box.width, box.height], [100, 0, 200, 400]);
  const corner = geometry.toScreen(wide, box, { x: 0, y: 0 });
  close(corner.x, 300);
  close(corner.y, 0);
  for (const view of [FITTED, right, mirrored(right), turned(mirrored(right)), { ...turned(right), zoom: 3, x: 7, y: -9 }]) {
    const there = geometry.place(wide, view, 500, 300);
    const seen = geometry.toScreen(wide, there, { x: 13, y: 77 });
    const back = geometry.toImage(wide, there, seen.x, seen.y);
    close(back.x, 13);
    close(back.y, 77);
  }
  assert.deepEqual(geometry.fitted({ ...mirrored(right), zoom: 5, x: 3, y: 4 }), { ...FITTED, turn: 1, mirror: true });
});
