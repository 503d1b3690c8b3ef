// HL7's own FHIRPath engine: reads {questions: [{base, expression, node, resource, root}]} and answers one line of JSON,
// for each question what the expression gives, or {error}. An engine's own word is worth more than its reimplementation.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.argv[2] + "/");
const fhirpath = require("fhirpath");
const model = require("fhirpath/fhir-context/r4");

// trace() in R4's expressions would write its findings between the answers.
const options = { traceFn: () => {} };
const { resources, questions } = JSON.parse(readFileSync(0, "utf8"));
const compiled = new Map();
const answers = questions.map(({ base, expression, node, resource, root }) => {
  const key = base + " " + expression;
  try {
    if (!compiled.has(key)) compiled.set(key, fhirpath.compile({ base, expression }, model, options));
    return compiled.get(key)(node, { resource: resources[resource], rootResource: resources[root] });
  } catch (error) {
    return { error: String(error.message ?? error) };
  }
});
process.stdout.write(JSON.stringify(answers));
