// Attacks on the page that only a real browser can show: "The page in the browser" in docs/design/threat-model.md.

import assert from 'node:assert/strict';
import http from 'node:http';
import test, { before } from 'node:test';

import { judge } from './judge.mjs';
import { Postkey, atTheEnd, startBrowser } from './world.mjs';

// The attacker's name leads to this machine: DNS rebinding.
const EVIL = 'evil.test';

let postkey, browser, owner, page, origin, evil;

/** A site of the attacker at another port of this machine. It serves `html` for every path. */
class EvilSite {
  static async start() {
    const site = new EvilSite();
    const server = http.createServer((_request, response) => response.setHeader('content-type', 'text/html').end(site.html));
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    atTheEnd(() => server.close());
    site.port = server.address().port;
    return site;
  }

  /** Its addresses: one of the same site as the page, because a site has no port, and a foreign one. */
  get addresses() {
    return [`http://127.0.0.1:${this.port}/`, `http://${EVIL}:${this.port}/`];
  }
}

before(async () => {
  postkey = await Postkey.start('attacks');
  browser = await startBrowser(`--host-resolver-rules=MAP ${EVIL} 127.0.0.1`);
  evil = await EvilSite.start();
  owner = await browser.newContext();
  page = await owner.newPage();
  await page.goto(await postkey.link());
  ({ origin } = new URL(page.url()));
});

/** Opens the attacker's page in the owner's browser. */
async function lure(address, html) {
  evil.html = `<!doctype html><title>evil</title>${html}`;
  const lured = await owner.newPage();
  await lured.goto(address);
  return lured;
}

/** Whether this is a page of somebody who has entered. */
const isInside = (text) => text.includes('Add an account');

test('a link opens the page once', async () => {
  const link = await postkey.link();
  const first = await (await browser.newContext()).newPage();
  await first.goto(link);
  assert.ok(isInside(await first.content()));
  const second = await (await browser.newContext()).newPage();
  const answer = await second.goto(link);
  assert.equal(answer.status(), 403);
  assert.ok(!isInside(await second.content()));
  await judge(second, 'closed');
  await second.goto(`${origin}/`);
  assert.ok(!isInside(await second.content()), 'without a cookie');
});

test('the cookie cannot be read by scripts and is not sent by other sites', async () => {
  const cookies = await owner.cookies();
  assert.equal(cookies.length, 1);
  assert.equal(cookies[0].httpOnly, true);
  assert.equal(cookies[0].sameSite, 'Strict');
  assert.equal(await page.evaluate(() => document.cookie), '');
});

test('the page cannot be framed', async () => {
  for (const address of evil.addresses) {
    const lured = await lure(address, `<iframe src="${origin}/" width="600" height="600"></iframe>`);
    await lured.waitForLoadState('networkidle');
    const [, frame] = lured.frames();
    assert.ok(!isInside(await frame.content()), address);
    await lured.close();
  }
});

test('forms of other pages change nothing', async () => {
  const before = await postkey.command('status', '--json');
  const fields = '<input name="address" value="evil@example.test"><input name="key" value="guessed">';
  for (const address of evil.addresses) {
    for (const path of ['/add', '/accounts/owner@example.test/forget', '/providers/known']) {
      for (const kind of ['application/x-www-form-urlencoded', 'multipart/form-data', 'text/plain']) {
        const lured = await lure(address, `<form method="post" action="${origin}${path}" enctype="${kind}">${fields}</form>`);
        const answered = lured.waitForResponse((response) => response.request().method() === 'POST');
        await lured.evaluate(() => document.forms[0].submit());
        assert.equal((await answered).status(), 403, `${path} from ${address} as ${kind}`);
        await lured.waitForURL(`${origin}${path}`);
        await lured.close();
      }
    }
  }
  assert.equal(await postkey.command('status', '--json'), before);
});

test('scripts of other pages read nothing', async () => {
  for (const address of evil.addresses) {
    const lured = await lure(address, '');
    const read = await lured.evaluate(async (target) => {
      const text = await fetch(`${target}/`, { credentials: 'include' }).then((answer) => answer.text(), () => 'refused');
      const opaque = await fetch(`${target}/`, { credentials: 'include', mode: 'no-cors' }).then((answer) => answer.text(), () => '');
      const events = await new Promise((resolve) => {
        const source = new EventSource(`${target}/events`, { withCredentials: true });
        source.onopen = () => resolve('opened');
        source.onerror = () => resolve('refused');
      });
      return { text, opaque, events };
    }, origin);
    assert.deepEqual(read, { text: 'refused', opaque: '', events: 'refused' }, address);
    await lured.close();
  }
});

test('a window of another page does not reach ours', async () => {
  const lured = await lure(evil.addresses[0], '');
  const opened = owner.waitForEvent('page');
  await lured.evaluate((target) => { globalThis.opened = globalThis.open(`${target}/`); }, origin);
  await (await opened).getByRole('heading').first().waitFor();
  await (await opened).waitForLoadState('networkidle');
  const reached = await lured.evaluate(() => { try { return globalThis.opened.document.title; } catch { return 'refused'; } });
  assert.ok(['refused', undefined, ''].includes(reached), reached);
  await lured.close();
  await (await opened).close();
});

test('under another name the page does not answer', async () => {
  const link = new URL(await postkey.link());
  const stranger = await (await browser.newContext()).newPage();
  for (const path of ['/', link.pathname]) {
    const answer = await stranger.goto(`http://${EVIL}:${link.port}${path}`);
    assert.equal(answer.status(), 421, path);
    assert.ok(!isInside(await stranger.content()), path);
  }
  await stranger.goto(link.href);
  assert.ok(isInside(await stranger.content()), 'the link has not been used up');
});

test('the page runs no script but its own', async () => {
  const ran = await page.evaluate(async () => {
    const violated = new Promise((resolve) => document.addEventListener('securitypolicyviolation', resolve, { once: true }));
    const script = document.createElement('script');
    script.textContent = 'globalThis.ran = true';
    document.head.append(script);
    await violated;
    return globalThis.ran ?? false;
  });
  assert.equal(ran, false);
  const left = await page.evaluate((target) => fetch(target, { mode: 'no-cors' }).then(() => 'left', () => 'kept'), evil.addresses[0]);
  assert.equal(left, 'kept', 'nothing is sent to another site');
});

test('a cookie is worthless after the page was stopped', async () => {
  const stolen = await owner.storageState();
  await postkey.command('web', '--stop');
  await assert.rejects(fetch(origin), 'the port is closed');
  const { port } = new URL(await postkey.link());
  const cookies = stolen.cookies.map((cookie) => ({ ...cookie, domain: '127.0.0.1' }));
  const thief = await (await browser.newContext({ storageState: { cookies, origins: [] } })).newPage();
  const answer = await thief.goto(`http://127.0.0.1:${port}/`);
  assert.equal(answer.status(), 403);
  assert.ok(!isInside(await thief.content()));
});
