// Drives npm fhir-kit-client for the tests: one JSON line {call, args} in, one JSON line out. Every request and every
// reading of an answer is the library's own; of ours is only the signature of the SMART backend assertion, which the
// library leaves to its user.
//
// argv: path of the library, base address of the FHIR server.
import { createPrivateKey, randomUUID, sign } from 'node:crypto';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';

const [library, baseUrl] = process.argv.slice(2);
const { CapabilityTool, Client } = await import(pathToFileURL(library));
const client = new Client({ baseUrl });

const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');

/** SMART backend services [SMART App Launch 2.2]: the library finds the token's address, we sign for it. */
async function authorize({ clientId, key, scope }) {
  const { tokenUrl } = await client.smartAuthMetadata();
  const now = Math.floor(Date.now() / 1000);
  const claims = { iss: clientId, sub: clientId, aud: String(tokenUrl), iat: now, exp: now + 240, jti: randomUUID() };
  const said = `${part({ alg: 'ES384', kid: key.kid, typ: 'JWT' })}.${part(claims)}`;
  const used = { key: createPrivateKey({ key, format: 'jwk' }), dsaEncoding: 'ieee-p1363' };
  const assertion = `${said}.${sign('sha384', Buffer.from(said), used).toString('base64url')}`;
  const form = new URLSearchParams({
    grant_type: 'client_credentials', scope, client_assertion: assertion,
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
  });
  const answer = await fetch(tokenUrl, { method: 'POST', body: form });
  const token = await answer.json();
  if (!answer.ok) throw Object.assign(new Error('no token'), { response: { status: answer.status, data: token } });
  client.bearerToken = token.access_token;
  return { scope: token.scope };
}

/** What the library's own reader of CapabilityStatements makes of ours. */
async function capabilities({ ask }) {
  const tool = new CapabilityTool(await client.capabilityStatement());
  return ask.map(([method, ...args]) => tool[method](...args));
}

const ours = { authorize, capabilities };

for await (const line of createInterface({ input: process.stdin })) {
  const { call, args } = JSON.parse(line);
  let told;
  try {
    const result = await (ours[call] ?? ((given) => client[call](given)))(args);
    const response = result && Client.httpFor(result).response;
    told = { result: result ?? null, status: response?.status, headers: response && Object.fromEntries(response.headers) };
  } catch (error) {
    told = { status: error.response?.status, result: error.response?.data, error: String(error.message) };
  }
  process.stdout.write(`${JSON.stringify(told)}\n`);
}
