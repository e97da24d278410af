// The authorization server of the tests: oidc-provider, with a loopback listener beside it for Dovecot and the driver.
//
//   node authorization-server.mjs SETTINGS.json
//
// Settings: httpsPort, httpPort, certificate and key (PEM files), clients (oidc-provider's client metadata), shared (the
// mailbox that somebody may open besides their own, by their address), grants (see grants.mjs).
// The https port is what the world sees. The clear port serves introspection (RFC 7662) and the driver's own routes:
//
//   GET  /admin/counts                 answered token requests by grant type; "refused" counts the others
//   GET  /admin/refresh-scopes         the scope that each refresh request names, or null
//   GET  /admin/registered             the ids of clients that have registered themselves (RFC 7591)
//   GET  /admin/authorized             the addresses of which a refresh token is alive
//   GET  /admin/secrets                every token, code verifier and code that was issued or presented so far
//   POST /admin/settings               {"accessTokenSeconds": 3600, "unavailable": false}: the life of access tokens issued
//                                      from now on, and whether the token endpoint answers 503
//   POST /admin/revoke-access-tokens   every access token is dead; refresh tokens live on

import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';

import { Provider } from 'oidc-provider';

import { addGrants } from './grants.mjs';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const behaviour = { accessTokenSeconds: 3600, unavailable: false };
const counts = { authorization_code: 0, refresh_token: 0, refused: 0 };
const secrets = new Set();
const refreshScopes = [];

/** Everything the provider stores, for as long as the process lives: the built-in store forgets beyond 1000 entries. */
const store = new Map();

class Store {
  constructor(model) {
    this.model = model;
  }

  key(id) {
    return `${this.model}:${id}`;
  }

  async upsert(id, payload) {
    store.set(this.key(id), payload);
  }

  async find(id) {
    return store.get(this.key(id));
  }

  async findByUid(uid) {
    return [...store.values()].find((payload) => payload.uid === uid);
  }

  async findByUserCode(userCode) {
    return [...store.values()].find((payload) => payload.userCode === userCode);
  }

  async consume(id) {
    store.get(this.key(id)).consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    store.delete(this.key(id));
  }

  async revokeByGrantId(grantId) {
    for (const [key, payload] of store) if (payload.grantId === grantId) store.delete(key);
  }
}

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });

const provider = new Provider(`https://127.0.0.1:${settings.httpsPort}`, {
  adapter: Store,
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  clients: settings.clients,
  conformIdTokenClaims: false, // the id_token itself carries the address
  cookies: { keys: [randomBytes(32).toString('hex')] },
  features: {
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true },
    registration: { enabled: true },
    revocation: { enabled: true },
  },
  findAccount: async (_ctx, id) => ({
    accountId: id,
    claims: async () => ({ sub: id, email: id, email_verified: true }),
  }),
  // Two clients get one without asking for consent, as at Google, where access_type=offline is enough.
  issueRefreshToken: async (_ctx, client, code) =>
    client.grantTypeAllowed('refresh_token') && (code.scopes.has('offline_access') || client.clientId.startsWith('lasting')),
  jwks: { keys: [{ ...privateKey.export({ format: 'jwk' }), alg: 'RS256', use: 'sig' }] },
  rotateRefreshToken: true,
  ttl: {
    AccessToken: () => behaviour.accessTokenSeconds,
    AuthorizationCode: 60,
    Grant: 86400,
    IdToken: 3600,
    Interaction: 3600,
    RefreshToken: 86400,
    Session: 3600,
  },
});

/** Counts what the token endpoint answers and remembers every secret that crosses it. */
async function watchTokenEndpoint(ctx, next) {
  if (ctx.path !== '/token') return next();
  if (behaviour.unavailable) {
    counts.refused += 1;
    ctx.status = 503;
    ctx.body = 'Closed for a while.';
    return undefined;
  }
  await next();
  if (ctx.oidc?.params?.grant_type === 'refresh_token') refreshScopes.push(ctx.oidc.params.scope ?? null);
  const answered = ctx.status === 200;
  const counted = answered ? ctx.oidc.params.grant_type : 'refused';
  counts[counted] = (counts[counted] ?? 0) + 1;
  const { code, code_verifier, refresh_token, device_code, assertion, client_assertion } = ctx.oidc?.params ?? {};
  const { access_token, id_token, refresh_token: rotated } = ctx.body ?? {};
  const presented = [code, code_verifier, refresh_token, device_code, assertion, client_assertion];
  for (const secret of [...presented, access_token, id_token, rotated]) {
    if (secret) secrets.add(secret);
  }
  return undefined;
}

/**
 * Tells introspection which mailbox a token opens besides its subject's own: what a directory knows at other providers.
 * Dovecot takes an answer without the user's name for an outage; RFC 7662 lets an inactive token's answer say nothing.
 */
async function nameMailboxes(ctx, next) {
  await next();
  if (ctx.oidc?.route !== 'introspection' || !ctx.body) return;
  if (ctx.body.active === false) ctx.body = { active: false, sub: 'nobody', client_id: 'none' };
  ctx.body = { ...ctx.body, shared: settings.shared[ctx.body.sub] ?? 'nobody' };
}

provider.use(watchTokenEndpoint);
provider.use(nameMailboxes);
addGrants(provider, settings.grants);

const routes = {
  'GET /admin/counts': () => counts,
  'GET /admin/refresh-scopes': () => refreshScopes,
  'GET /admin/registered': () =>
    [...store.keys()].filter((key) => key.startsWith('Client:')).map((key) => key.slice('Client:'.length)),
  'GET /admin/authorized': () =>
    [...store].filter(([key, token]) => key.startsWith('RefreshToken:') && !token.consumed).map(([, token]) => token.accountId),
  'GET /admin/secrets': () => [...secrets],
  'POST /admin/settings': (body) => Object.assign(behaviour, JSON.parse(body)),
  'POST /admin/revoke-access-tokens': () => {
    const tokens = [...store.keys()].filter((key) => /^(AccessToken|ClientCredentials):/.test(key));
    tokens.forEach((key) => store.delete(key));
    return { revoked: tokens.length };
  },
};

async function administer(request, response) {
  const route = routes[`${request.method} ${request.url}`];
  let body = '';
  for await (const chunk of request) body += chunk;
  response.writeHead(route ? 200 : 404, { 'content-type': 'application/json' });
  response.end(JSON.stringify(route ? route(body) : {}));
}

// Programs that know only Microsoft's paths find them here, too.
const callback = provider.callback();
const answer = (request, response) => {
  request.url = request.url.replace(/^\/common\/oauth2\/v2\.0\//, '/');
  return callback(request, response);
};
const tls = { cert: readFileSync(settings.certificate), key: readFileSync(settings.key) };
https.createServer(tls, answer).listen(settings.httpsPort, '127.0.0.1');
http
  .createServer((request, response) =>
    request.url.startsWith('/admin/') ? administer(request, response) : answer(request, response))
  .listen(settings.httpPort, '127.0.0.1');
