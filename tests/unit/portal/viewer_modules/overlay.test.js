// What is said when two images do not belong side by side.
import assert from "node:assert/strict";
import { test } from "node:test";

import { caution } from "./viewer_overlay.js";

const seen = (name, birth, examined) => ({ patient: { name, birth }, examined });
const NOW = seen("PAT-TROIS DOMINIQUE", "19790328", "20260305");

test("the same person on the same day needs no word", () => {
  assert.equal(caution([NOW], "28/03/1979"), undefined);
  assert.equal(caution([NOW, seen("Pat Trois Dominique Anne", "19790328", "20260305")], "28/03/1979"), undefined);
  assert.equal(caution([NOW, seen("", "", "")], "28/03/1979"), undefined);
  assert.equal(caution([seen("PAT-TROIS", "19790328", "20260305")], "1979"), undefined, "a year alone is compared by nobody");
});

test("two days are said", () => {
  const said = caution([NOW, seen("PAT-TROIS DOMINIQUE", "19790328", "20260105")], "28/03/1979");
  assert.deepEqual(said, { grave: false, words: "Examens de dates différentes\u00a0: 05/03/2026 et 05/01/2026." });
});

test("another person is said loudly, by name or by birth", () => {
  for (const other of [seen("AUTRE Élodie", "19790328", "20260305"), seen("PAT-TROIS DOMINIQUE", "19810402", "20260305")]) {
    const said = caution([NOW, other], "");
    assert.equal(said.grave, true);
    assert.match(said.words, /même identité/);
  }
  const said = caution([seen("PAT-TROIS DOMINIQUE", "19810402", "20260305")], "28/03/1979");
  assert.deepEqual(said, { grave: true, words: "Ces images portent une autre date de naissance que le dossier\u00a0: 02/04/1981." });
});
