// A certified OpenID provider (npm oidc-provider) set up as Pro Santé Connect is, for end-to-end tests only: discovery
// under PSC's own name, authorization on another path, acr by account, userinfo with SubjectNameID and SubjectRefPro.
// Everything else (code, PKCE, signatures, sessions, logout, back channel) is the library's own conduct.
//
// argv: one JSON object {port, accounts, clients, library}; "ready" on stdout once it listens.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';

const { port, accounts, clients, library } = JSON.parse(process.argv[2]);
const { default: Provider } = await import(pathToFileURL(library));
const origin = `http://127.0.0.1:${port}`;
const realm = '/auth/realms/esante-wallet';
const protocol = '/protocol/openid-connect';
const issuer = origin + realm;
const bySub = new Map(accounts.map((account) => [account.userinfo.sub, account]));
const pscClaims = [...new Set(accounts.flatMap((account) => Object.keys(account.userinfo)))].filter((name) => name !== 'sub');

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), use: 'sig', alg: 'RS256', kid: randomBytes(8).toString('hex') };

const provider = new Provider(issuer, {
  clients: clients.map((client) => ({
    grant_types: ['authorization_code'], response_types: ['code'], id_token_signed_response_alg: 'RS256', ...client,
  })),
  jwks: { keys: [key] },
  acrValues: ['eidas0', 'eidas1', 'eidas2'],
  responseTypes: ['code'],
  scopes: ['openid', 'scope_all'],
  claims: { acr: null, sid: null, auth_time: null, openid: ['sub', 'typ', 'azp', 'preferred_username'], scope_all: pscClaims },
  conformIdTokenClaims: false,
  pkce: { required: () => true },
  clientAuthMethods: ['client_secret_basic', 'client_secret_post'],
  cookies: { keys: [randomBytes(24).toString('base64url')] },
  ttl: { AccessToken: 120, IdToken: 120, AuthorizationCode: 60, Interaction: 600, Session: 14400, Grant: 14400 },
  // The library refuses private addresses; the gateway under test listens on one.
  fetch: (url, { dispatcher, ...options }) => globalThis.fetch(url, options),
  expiresWithSession: () => true,
  routes: {
    authorization: `${protocol}/auth`, token: `${protocol}/token`, userinfo: `${protocol}/userinfo`,
    end_session: `${protocol}/logout`, jwks: `${protocol}/certs`,
  },
  interactions: { url: (ctx, interaction) => `${realm}/interaction/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const grant = new provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
    grant.addOIDCScope('openid scope_all');
    grant.addOIDCClaims([...pscClaims, 'acr', 'auth_time']);
    await grant.save();
    return grant;
  },
  findAccount: async (ctx, sub) => {
    const account = bySub.get(sub);
    return account && {
      accountId: sub,
      claims: async (use) => (use === 'id_token'
        ? { sub, typ: 'ID', azp: ctx.oidc.client.clientId, preferred_username: account.userinfo.preferred_username }
        : account.userinfo),
    };
  },
  features: {
    devInteractions: { enabled: false },
    jwtUserinfo: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx, form) => { ctx.body = `<!doctype html>${form}<button form="op.logoutForm" name="logout" value="yes">Se déconnecter</button>`; },
    },
  },
});

// The account is chosen by ?compte= on the interaction's address: what a card reader does at PSC.
provider.use(async (ctx, next) => {
  const found = /^\/interaction\/[\w-]+$/.exec(ctx.path);
  if (!found) return next();
  const chosen = ctx.query.compte;
  if (chosen === undefined) { ctx.body = 'compte ?'; return undefined; }
  const account = accounts.find((one) => one.key === chosen);
  const result = account
    ? { login: { accountId: account.userinfo.sub, acr: account.acr, remember: true } }
    : { error: 'access_denied', error_description: 'refused' };
  ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result, { mergeWithLastSubmission: false }));
  return undefined;
});

const serve = provider.callback();

async function discovery(res) {
  const standard = await fetch(`${issuer}/.well-known/openid-configuration`, { headers: { 'x-inside': inside } });
  const document = await standard.json();
  document.authorization_endpoint = `${origin}/wallet/auth`;
  document.acr_values_supported = ['0', '0'];
  res.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(document));
}

const inside = randomBytes(16).toString('hex');
createServer((req, res) => {
  const [path, query] = req.url.split(/\?(.*)/s);
  if (path === `${realm}/.well-known/wallet-openid-configuration`) return discovery(res);
  if (path === `${realm}/.well-known/openid-configuration` && req.headers['x-inside'] !== inside) return res.writeHead(404).end();
  const full = path === '/wallet/auth' ? `${realm}${protocol}/auth` : path;
  if (!full.startsWith(`${realm}/`)) return res.writeHead(404).end();
  req.originalUrl = full + (query === undefined ? '' : `?${query}`);
  req.url = req.originalUrl.slice(realm.length);
  return serve(req, res);
}).listen(port, '127.0.0.1', () => console.log('ready'));
