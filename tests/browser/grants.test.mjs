// The ways to an account beside the usual sign-in, and an account that stops working.

import assert from 'node:assert/strict';
import test, { before } from 'node:test';

import { judge } from './judge.mjs';
import { Person } from './person.mjs';
import { Gate, Postkey, startBrowser, world } from './world.mjs';

const SLOW = 'slow@held.test';

let postkey, gate, browser, password;

/** A person in a new window, who has entered by a new link. */
async function enter(context = {}) {
  const entered = new Person(await (await browser.newContext({ ignoreHTTPSErrors: true, ...context })).newPage());
  await entered.page.goto(await postkey.link());
  return entered;
}

/** Begins to add an account; `way` is how to sign in. */
async function begin(person, address, way) {
  await person.page.goto(new URL('/add', person.page.url()).href);
  await person.type('E-mail address', address);
  if (way) {
    await person.page.getByText('More', { exact: true }).click();
    await person.choose('How to sign in', way);
  }
  await person.press('Continue');
}

before(async () => {
  gate = await Gate.start(world.submissionPort);
  postkey = await Postkey.start('grants', world.held.replace('PORT', gate.port));
  browser = await startBrowser();
});

test('each login is shown as it ends, without script', async () => {
  const person = await enter({ javaScriptEnabled: false });
  const { page } = person;
  await begin(person, SLOW);
  await person.press('Sign in at', 'link');
  await person.signIn(SLOW);
  for (const protocol of ['IMAP', 'POP3']) await page.getByText(`${protocol} works`).waitFor();
  assert.equal(await page.getByText(/SMTP (works|refused)/).count(), 0, 'it waits');
  assert.equal(await page.locator('#password').count(), 0, 'the rest comes later');
  gate.open();
  await page.getByText('SMTP works').waitFor();
  password = await page.locator('#password').textContent();
});

test('doctor says why an account stopped working', async () => {
  const person = await enter();
  gate.close();
  await person.page.goto(new URL(`/accounts/${SLOW}`, person.page.url()).href);
  const form = person.page.locator('form[action$="/doctor"]');
  await form.getByLabel('app password').fill(password);
  await form.getByRole('button').click();
  await person.sees('Report about');
  await person.page.getByText(/The likely cause is the SMTP server/).waitFor();
  const report = await person.page.locator('#report').textContent();
  for (const line of [/ok IMAP login/, /problem SMTP server/, /ok listener imap/]) assert.match(report, line);
  await judge(person.page, 'report-problem');
});

test('the address of a last page that does not load is pasted', async () => {
  const person = await enter();
  await begin(person, 'ann@example.test');
  const link = await person.page.getByRole('link', { name: 'Sign in at' }).getAttribute('href');
  // As on another machine: nothing answers without TLS.
  const far = await startBrowser('--proxy-server=http=127.0.0.1:1', '--proxy-bypass-list=<-loopback>');
  const elsewhere = new Person(await (await far.newContext({ ignoreHTTPSErrors: true })).newPage());
  const last = elsewhere.page.waitForRequest(/^http:.*code=/);
  await elsewhere.page.goto(link);
  await elsewhere.signIn('ann@example.test', { returns: false });
  await person.page.getByText('The last page does not load').click();
  await person.type('Address of the last page', (await last).url());
  await person.press('Continue with this address');
  await person.sees('ann@example.test is set up');
});

test('a corrected address is set up at its own provider', async () => {
  const person = await enter();
  // Nobody has registered a client there yet.
  await begin(person, 'ann@registered.test');
  await person.sees('client registration');
  await person.type('Client id', 'native');
  await person.page.getByLabel('Client secret').fill('for the other provider');
  await person.type('E-mail address', 'ben@example.test');
  await person.press('Continue');
  await person.sees('Set up ben@example.test');
  await person.press('Sign in at', 'link');
  await person.signIn('ben@example.test');
  await person.sees('ben@example.test is set up');
});

test('a client with a secret is registered once, for all accounts of its provider', async () => {
  const person = await enter();
  await begin(person, 'ann@registered.test');
  await person.sees('client registration');
  await person.type('Client id', 'confidential');
  await person.page.getByLabel('Client secret').fill(world.clientSecret);
  await person.press('Continue');
  await person.press('Sign in at', 'link');
  await person.signIn('ann@registered.test');
  await person.sees('ann@registered.test is set up');
  await person.page.getByText('IMAP works').waitFor();
  await begin(person, 'ben@registered.test');
  await person.sees('Set up ben@registered.test');
});

test('a client that has access itself can correct its secret', async () => {
  const person = await enter();
  const { page } = person;
  await begin(person, 'robot@robots.test', 'Nobody signs in: the client itself has access (client credentials)');
  await person.sees('client registration');
  await person.type('Client id', 'robot');
  await page.getByLabel('Client secret').fill('a wrong secret');
  await person.press('Continue');
  await page.getByRole('alert').waitFor();
  assert.equal(await page.getByLabel('Client id').inputValue(), 'robot');
  assert.ok(!(await page.content()).includes('a wrong secret'));
  await judge(page, 'client-refused');
  await page.getByLabel('Client secret').fill(world.clientSecret);
  await person.press('Continue');
  await person.sees('robot@robots.test is set up');
  await page.getByText('IMAP works').waitFor();
});

test('the key of a service account is read from its file', async () => {
  const person = await enter();
  const { page } = person;
  await begin(person, 'machine@example.test', 'Nobody signs in: a service account has access');
  const field = page.getByLabel('The key of the service account', { exact: true });
  await field.fill('no key');
  await person.press('Continue');
  await page.getByRole('alert').getByText('it is not the JSON file').waitFor();
  await judge(page, 'service-account');
  const file = { name: 'key.json', mimeType: 'application/json', buffer: Buffer.from(world.serviceAccount) };
  await page.getByLabel('The key of the service account, as a file').setInputFiles(file);
  await page.waitForFunction(() => document.querySelector('textarea').value.includes('PRIVATE KEY'));
  await person.press('Continue');
  await person.sees('machine@example.test is set up');
  await page.getByText('IMAP works').waitFor();
});
