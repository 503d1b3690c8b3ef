// Windows, stored bits, statistics: values typed from PS3.3 C.11.2.1 and worked out on paper.
import assert from "node:assert/strict";
import { test } from "node:test";

import { firstPart, fullWindow, modalityValue, paint, shade, statistics, storedValue, valueAt, words } from "./viewer_pixels.js";

const CT = { rows: 2, columns: 2, bits: 16, stored: 12, high: 11, signed: false, slope: 1, intercept: -1024, inverse: false };
const linear = (center, width) => ({ center, width, shape: "LINEAR" });

test("the linear function, by the examples of PS3.3 C.11.2.1.2.1", () => {
  // Centre 2048, width 4096: at or below 0 black, above 4095 white.
  assert.equal(shade(0, linear(2048, 4096)), 0);
  assert.equal(shade(-1, linear(2048, 4096)), 0);
  assert.equal(shade(4095.5, linear(2048, 4096)), 255);
  assert.equal(shade(2047.5, linear(2048, 4096)), 128);
  // Centre 0, width 100: at or below -50 black, above 49 white.
  assert.equal(shade(-50, linear(0, 100)), 0);
  assert.equal(shade(49.5, linear(0, 100)), 255);
  // ((-1 + 0.5) / 99 + 0.5) × 255 = 126.2
  assert.equal(shade(-1, linear(0, 100)), 126);
  // Centre 0, width 1: at or below -0.5 black, all else white.
  assert.equal(shade(-1, linear(0, 1)), 0);
  assert.equal(shade(0, linear(0, 1)), 255);
});

test("the exact linear function, by PS3.3 C.11.2.1.3.2", () => {
  const exact = (center, width) => ({ center, width, shape: "LINEAR_EXACT" });
  // Centre 2048, width 4096: at or below 0 black, above 4096 white; (1024 - 2048) / 4096 + 0.5 = 0.25
  assert.equal(shade(0, exact(2048, 4096)), 0);
  assert.equal(shade(1024, exact(2048, 4096)), 64);
  assert.equal(shade(4097, exact(2048, 4096)), 255);
});

test("the sigmoid, by PS3.3 C.11.2.1.3.1", () => {
  const sigmoid = { center: 40, width: 400, shape: "SIGMOID" };
  assert.equal(shade(40, sigmoid), 128); // 255 / 2
  assert.equal(shade(240, sigmoid), 225); // 255 / (1 + e^-2) = 224.6
  assert.equal(shade(-160, sigmoid), 30); // 255 / (1 + e^2) = 30.4
});

test("bits beside the stored ones do not count, and the highest is the sign", () => {
  assert.equal(storedValue(0xf400, CT), 0x400);
  assert.equal(modalityValue(0xf400, CT), 0);
  assert.equal(storedValue(0x0fff, { ...CT, signed: true }), -1);
  assert.equal(storedValue(0x0800, { ...CT, signed: true }), -2048);
  assert.equal(storedValue(0xffff, { ...CT, stored: 16, high: 15, signed: true }), -1);
  // Twelve bits in the upper part of the word.
  assert.equal(storedValue(0x1230, { ...CT, high: 15 }), 0x123);
  assert.equal(storedValue(0xfffffff6, { ...CT, bits: 32, stored: 32, high: 31, signed: true }), -10);
});

test("an image is painted through its window, MONOCHROME1 the other way round", () => {
  const pixels = Uint16Array.of(1024 - 160, 1024 + 40, 1024 + 240, 1024 + 140);
  const colours = new Uint32Array(4);
  paint(pixels, CT, linear(40, 400), false, colours);
  // -160: at the foot; 40: (0.5 / 399 + 0.5) × 255 = 127.8; 240: above the top; 140: (100.5 / 399 + 0.5) × 255 = 191.7
  assert.deepEqual([...colours].map((it) => it & 255), [0, 128, 255, 192]);
  assert.ok([...colours].every((it) => it >>> 24 === 255));
  paint(pixels, { ...CT, inverse: true }, linear(40, 400), false, colours);
  assert.deepEqual([...colours].map((it) => (it >> 8) & 255), [255, 127, 0, 63]);
  paint(pixels, CT, linear(40, 400), true, colours);
  assert.deepEqual([...colours].map((it) => (it >> 16) & 255), [255, 127, 0, 63]);
});

test("the full window ends at the extremes, without the padding", () => {
  const found = fullWindow(Uint16Array.of(0, 1024, 1124, 0), { ...CT, padding: 0 });
  assert.deepEqual([found.center, found.width], [50, 100]);
});

test("figures of an ellipse count the pixels whose centre lies in it", () => {
  const image = { ...CT, rows: 4, columns: 4, intercept: 0 };
  const pixels = new Uint16Array(16).fill(10);
  pixels[5] = 30; // second line, second column
  // Corners (0.6, 0.6) and (3.4, 3.4): centre 2, radius 1.4; the four middle pixels lie 0.71 from it, others 1.58 and more.
  const found = statistics(pixels, image, { x: 3.4, y: 0.6 }, { x: 0.6, y: 3.4 });
  assert.equal(found.count, 4);
  assert.equal(found.mean, 15);
  assert.equal(found.deviation, Math.sqrt(75)); // (15² + 3 × 5²) / 4
  assert.deepEqual([found.low, found.high], [10, 30]);
  assert.equal(statistics(pixels, image, { x: 9, y: 9 }, { x: 12, y: 12 }), undefined);
  assert.equal(valueAt(pixels, image, 1.9, 1.1), 30);
  assert.equal(valueAt(pixels, image, 4, 1), undefined);
});

test("a part of a multipart answer is its very bytes", () => {
  const encode = (text) => new TextEncoder().encode(text);
  const payload = Uint8Array.of(13, 10, 45, 45, 1, 2, 3, 4);
  const join = (...parts) => Uint8Array.from(parts.flatMap((it) => [...it]));
  const head = "--x1\r\nContent-Type: application/octet-stream\r\n";
  const kind = 'multipart/related; type="application/octet-stream"; boundary=x1';
  const told = join(encode(`${head}Content-Length: 8\r\n\r\n`), payload, encode("\r\n--x1--\r\n"));
  assert.deepEqual([...firstPart(told, kind)], [...payload]);
  const untold = join(encode(`\r\n${head}\r\n`), payload, encode("\r\n--x1--\r\n"));
  assert.deepEqual([...firstPart(untold, kind.replace("x1", '"x1"'))], [...payload]);
});

test("missing bytes are no image", () => {
  assert.equal(words(new Uint8Array(7), CT), undefined);
  assert.deepEqual([...words(Uint8Array.of(0, 1, 0, 2, 0, 3, 0, 4, 0).subarray(1), CT)], [1, 2, 3, 4]);
});
