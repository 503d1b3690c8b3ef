// DICOM JSON as PS3.18 F writes it → a stack.
import assert from "node:assert/strict";
import { test } from "node:test";

import { stack } from "./viewer_dicom.js";

const el = (vr, ...Value) => ({ vr, Value });
const ROOT = "/dicom-web";
const slice = (number, z, more = {}) => ({
  "00080016": el("UI", "1.2.840.10008.5.1.4.1.1.2"), "00080018": el("UI", `1.5.${number}`), "00080060": el("CS", "CT"),
  "0020000D": el("UI", "1.3"), "0020000E": el("UI", "1.4"), "00200013": el("IS", number), "00200052": el("UI", "1.9"),
  "00200032": el("DS", -10, -10, z), "00200037": el("DS", 1, 0, 0, 0, 1, 0), "00280030": el("DS", 0.8, 0.4),
  "00280002": el("US", 1), "00280004": el("CS", "MONOCHROME2"), "00280010": el("US", 4), "00280011": el("US", 6),
  "00280100": el("US", 16), "00280101": el("US", 12), "00280102": el("US", 11), "00280103": el("US", 0),
  "00281050": el("DS", 40, -600), "00281051": el("DS", 400, 1500), "00281055": el("LO", "MEDIASTIN", "POUMON"),
  "00281052": el("DS", -1024), "00281053": el("DS", 1), "00100010": el("PN", { Alphabetic: "PAT-TROIS^DOMINIQUE" }),
  ...more,
});

test("slices lie by position, in the sense of their numbers", () => {
  const uids = (...slices) => stack(slices, ROOT).map((it) => it.uid);
  assert.deepEqual(uids(slice(1, 0), slice(3, -5), slice(2, -10)), ["1.5.1", "1.5.3", "1.5.2"]);
  assert.deepEqual(uids(slice(2, 0), slice(1, -10), slice(3, 10)), ["1.5.1", "1.5.2", "1.5.3"]);
  assert.deepEqual(uids(slice(2, 0), slice(1, 0)), ["1.5.1", "1.5.2"], "the same place twice: the numbers decide");
  const turned = slice(1, 5, { "00200037": el("DS", 0, 1, 0, 0, 0, -1) });
  assert.deepEqual(uids(slice(2, 0), turned), ["1.5.1", "1.5.2"], "two orientations: the numbers decide");
});

test("an image says how its pixels are to be read", () => {
  const [image] = stack([slice(1, -5)], ROOT);
  assert.equal(image.address, "/dicom-web/studies/1.3/series/1.4/instances/1.5.1");
  assert.deepEqual([image.exact, image.bits, image.stored, image.high, image.signed], [true, 16, 12, 11, false]);
  assert.deepEqual([image.slope, image.intercept, image.unit], [1, -1024, "UH"]);
  assert.deepEqual(image.spacing, { row: 0.8, column: 0.4, note: "" });
  assert.equal(image.along, -5);
  assert.deepEqual(image.windows[1], { center: -600, width: 1500, shape: "LINEAR", label: "POUMON" });
  assert.deepEqual(image.patient, { name: "PAT-TROIS DOMINIQUE", birth: "" });
});

test("what only the server can draw is left to it", () => {
  const exact = (more) => stack([slice(1, 0, more)], ROOT)[0].exact;
  assert.equal(exact({ "00280004": el("CS", "RGB"), "00280002": el("US", 3) }), false);
  assert.equal(exact({ "00280004": el("CS", "PALETTE COLOR") }), false);
  assert.equal(exact({ "00280100": el("US", 1) }), false);
  assert.equal(exact({ "00283000": el("SQ", {}) }), false);
  assert.equal(exact({ 60000010: el("US", 4) }), false);
  assert.equal(exact({ 60020010: el("US", 4) }), false);
});

test("frames of an enhanced object take what their functional groups say", () => {
  const shared = { "00289110": el("SQ", { "00280030": el("DS", 2, 2) }), "00209116": el("SQ", { "00200037": el("DS", 0, 1, 0, 0, 0, -1) }) };
  const each = (x, center) => ({
    "00209113": el("SQ", { "00200032": el("DS", x, 0, 0) }),
    "00289132": el("SQ", { "00281050": el("DS", center), "00281051": el("DS", 50) }),
    "00289145": el("SQ", { "00281052": el("DS", 5), "00281053": el("DS", 3), "00281054": el("LO", "US") }),
  });
  const ds = slice(1, 0, { "00280008": el("IS", 2), "00200032": el("DS"), "00200037": el("DS"), "00280030": el("DS"), 52009229: el("SQ", shared), 52009230: el("SQ", each(10, 7), each(4, 9)) });
  const images = stack([ds], ROOT);
  assert.deepEqual(images.map((it) => it.key), ["1.5.1/1", "1.5.1/2"]);
  assert.deepEqual(images.map((it) => it.windows[0].center), [7, 9]);
  assert.deepEqual(images.map((it) => it.along), [-10, -4]);
  assert.deepEqual([images[0].spacing.row, images[0].slope, images[0].intercept, images[0].unit], [2, 3, 5, ""]);
});

test("documents stand behind the images, and say what they are", () => {
  const pdf = { "00080016": el("UI", "1.2.840.10008.5.1.4.1.1.104.1"), "00080018": el("UI", "1.6"), "00420010": el("ST", "Courrier") };
  const report = { "00080016": el("UI", "1.2.840.10008.5.1.4.1.1.88.33"), "00080018": el("UI", "1.7") };
  const marks = { "00080016": el("UI", "1.2.840.10008.5.1.4.1.1.11.1"), "00080018": el("UI", "1.8") };
  const found = stack([pdf, report, marks, slice(1, 0)], ROOT);
  assert.deepEqual(found.map((it) => [it.kind, it.label, it.readable]).slice(1), [
    ["document", "Document PDF", true], ["document", "Compte rendu structuré", true], ["document", "État de présentation", false],
  ]);
  assert.equal(found[1].title, "Courrier");
});

test("nothing that is written against its type stops the stack", () => {
  const broken = slice(1, 0, {
    "00281050": el("DS", "x"), "00281053": { vr: "DS" }, "00200037": el("DS", 0, 0, 0, 0, 0, 0), "00280030": el("DS", 0, 0),
    "00280008": el("IS", "beaucoup"), "00100010": el("PN"), "00280034": el("IS", 4, 3),
  });
  const [image] = stack([broken], ROOT);
  assert.deepEqual([image.windows, image.slope, image.normal, image.spacing, image.frames], [[], 1, undefined, undefined, 1]);
  assert.equal(image.ratio, 4 / 3);
});

test("an ultrasound's regions give its scale, when they agree", () => {
  const region = (delta) => ({ "00186012": el("US", 1), "00186024": el("US", 3), "0018602C": el("FD", delta), "0018602E": el("FD", delta) });
  const scale = (...regions) => stack([slice(1, 0, { "00280030": el("DS"), "00186011": el("SQ", ...regions) })], ROOT)[0].spacing;
  assert.deepEqual(scale(region(0.05), region(0.05)), { row: 0.5, column: 0.5, note: "" });
  assert.equal(scale(region(0.05), region(0.06)), undefined);
});
