// The grants in which nobody opens a browser: two that oidc-provider does not know, and whose mailbox a client has been let into.

import { createPublicKey, verify } from 'node:crypto';
import { readFileSync } from 'node:fs';

import { errors } from 'oidc-provider';

const PASSWORD = 'password';
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

/** An access token for a mailbox, and the token endpoint's answer with it. */
async function answer(ctx, accountId, scope) {
  const { client, provider } = ctx.oidc;
  const token = new provider.AccessToken({ accountId, client, gty: ctx.oidc.params.grant_type, scope });
  ctx.body = { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer', scope };
}

/** RFC 6749 section 4.3. */
function passwordGrant(password) {
  return async (ctx) => {
    const { username, password: given, scope } = ctx.oidc.params;
    if (given !== password) throw new errors.InvalidGrant('wrong user name or password');
    await answer(ctx, username, scope);
  };
}

/** Header and claims of a JSON Web Token that this RSA key has signed. */
function read(token, key) {
  const [header, claims, signature] = token.split('.');
  if (!verify('RSA-SHA256', Buffer.from(`${header}.${claims}`), key, Buffer.from(signature ?? '', 'base64url'))) {
    throw new errors.InvalidGrant('the signature is wrong');
  }
  const json = (part) => JSON.parse(Buffer.from(part, 'base64url').toString());
  return { header: json(header), claims: json(claims) };
}

/** RFC 7523 section 2.1, with the scope among the claims, as Google has it. */
function jwtBearerGrant(issuer, certificate, audience) {
  const key = createPublicKey(readFileSync(certificate));
  return async (ctx) => {
    const { header, claims } = read(ctx.oidc.params.assertion ?? '', key);
    const now = Date.now() / 1000;
    const isGood = header.alg === 'RS256' && claims.iss === issuer && claims.aud === audience
      && now - 60 < claims.iat && claims.iat <= now + 1 && now < claims.exp && claims.exp <= claims.iat + 3600;
    if (!isGood) throw new errors.InvalidGrant('the assertion is not good');
    await answer(ctx, claims.sub, claims.scope);
  };
}

/** Adds the grants; `settings` has issuer, certificate, password, and mailboxes by client id. */
export function addGrants(provider, settings) {
  provider.registerGrantType(PASSWORD, passwordGrant(settings.password), ['username', 'password', 'scope']);
  const bearer = jwtBearerGrant(settings.issuer, settings.certificate, `${provider.issuer}/token`);
  provider.registerGrantType(JWT_BEARER, bearer, ['assertion']);
  provider.use(async (ctx, next) => {
    await next();
    // A client's own token has no subject; Dovecot is told the mailbox that the client has been let into.
    if (ctx.oidc?.route === 'introspection' && ctx.oidc.entities.ClientCredentials) {
      ctx.body.sub = settings.mailboxes[ctx.body.client_id];
    }
  });
}
