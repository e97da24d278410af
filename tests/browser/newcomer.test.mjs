// A newcomer's whole path: from an empty folder to a mail that curl reads with the password that the page has shown.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test, { before } from 'node:test';
import { promisify } from 'node:util';

import { judge } from './judge.mjs';
import { Person, Typist } from './person.mjs';
import { Postkey, startBrowser, world } from './world.mjs';

let browser;

before(async () => {
  browser = await startBrowser();
});

/** What each provider asks for, and how many fields and clicks the path may take. */
const PROVIDERS = {
  'example.test': { most: 8 },
  'discovered.test': { most: 8 },
  'registered.test': { most: 12, registration: true },
};

/** Walks the path. Returns the file with the settings for curl, from the last page. */
async function settle(person, postkey, domain, look) {
  const { page } = person;
  const address = `newcomer@${domain}`;
  await page.goto(await postkey.link());
  await look('add');
  await person.type('E-mail address', address);
  await person.choose('Mail program', 'curl, in a file for --config');
  await person.press('Continue');
  if (PROVIDERS[domain].registration) {
    await person.sees('client registration');
    await look('registration-by-note');
    await person.type('Client id', 'native');
    await person.press('Continue');
  }
  await person.sees(`Set up ${address}`);
  await look('sign-in');
  await person.press('Sign in at 127.0.0.1', 'link');
  await person.signIn(address);
  await person.sees(`${address} is set up`);
  // It comes after the logins.
  await page.locator('#password').waitFor();
  await look('set-up');
  const [password, settings] = await Promise.all(['#password', '#program-settings'].map((one) => page.locator(one).textContent()));
  assert.ok(settings.includes(password), 'the settings contain the password that is shown');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download curlrc' }).click()]);
  assert.equal(download.suggestedFilename(), 'curlrc');
  const file = await download.path();
  assert.equal(readFileSync(file, 'utf8').trim(), settings.trim());
  return file;
}

/** Reads the first mail of the mailbox with curl. */
async function readWithCurl(postkey, file) {
  const { stdout } = await promisify(execFile)('curl', ['--silent', '--show-error', '--config', file], { env: postkey.environment });
  return stdout;
}

/** The whole path. */
async function arrive(domain, { person: Kind = Person, context = {}, name, look = async () => {} }) {
  const start = performance.now();
  const postkey = new Postkey(name);
  const page = await (await browser.newContext({ ignoreHTTPSErrors: true, ...context })).newPage();
  const person = new Kind(page);
  const file = await settle(person, postkey, domain, (shown) => look(page, shown));
  const mail = await readWithCurl(postkey, file);
  assert.ok(mail.includes(world.marks[`newcomer@${domain}`]), mail);
  const { most } = PROVIDERS[domain];
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${name}: ${person.fields} fields and ${person.clicks} clicks (at most ${most} together), ${seconds} s`);
  assert.ok(person.fields + person.clicks <= most, 'too many fields and clicks');
}

for (const domain of Object.keys(PROVIDERS)) {
  test(`a newcomer at ${domain} reads mail`, () => arrive(domain, { name: domain }));
}

test('every page on the way is good to look at', () => arrive('registered.test', { name: 'looked-at', look: judge }));
test('a newcomer reads mail with the keyboard alone', () => arrive('registered.test', { name: 'keyboard', person: Typist }));
test('a newcomer reads mail without script', () => arrive('registered.test', { name: 'no-script', context: { javaScriptEnabled: false } }));
