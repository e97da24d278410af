// Every page, and every error that a person can meet on it, in the order of an account's life.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import test, { before } from 'node:test';

import { judge } from './judge.mjs';
import { Person } from './person.mjs';
import { Postkey, startBrowser } from './world.mjs';

const ANN = 'ann@example.test';

// People of this domain set themselves up at their first login. Ann has a second name, and opens a shared mailbox.
const ACCOUNTS = `
[account."*@whole.test"]
provider = "known"

[account."${ANN}"]
aliases = ["annie@example.test"]

[account."office@example.test"]
delegate = "${ANN}"
`;

let postkey, browser, person, page, origin, password, imap;

/** A person in a window of their own, who has entered by a new link. */
async function enter() {
  const entered = new Person(await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage());
  await entered.page.goto(await postkey.link());
  return entered;
}

/** Begins to add an account, up to the page that leads to the provider. */
async function begin(who, address) {
  await who.page.goto(`${origin}/add`);
  await who.type('E-mail address', address);
  await who.press('Continue');
}

/** An IMAP login as curl does it. Returns what curl says about it. */
function logIn(user, secret) {
  const command = ['--silent', '--show-error', '--user', `${user}:${secret}`, `imap://127.0.0.1:${imap}/INBOX`];
  return new Promise((resolve) => execFile('curl', ['--verbose', ...command], (_error, out, said) => resolve(out + said)));
}

/** Sends a form without the browser's own checks, so that the answer is postkey's. */
const uncheck = () => page.evaluate(() => document.querySelectorAll('form').forEach((form) => { form.noValidate = true; }));

/** Fails unless a field is marked as wrong, with this text linked to it. */
async function isWrong(label, why) {
  const field = page.getByLabel(label).and(page.locator('[aria-invalid=true]')).first();
  const ids = (await field.getAttribute('aria-describedby')).split(' ');
  const texts = await Promise.all(ids.map((id) => page.locator(`[id="${id}"]`).textContent()));
  assert.match(texts.join(' '), why);
}

before(async () => {
  postkey = await Postkey.start('pages', ACCOUNTS);
  browser = await startBrowser();
  person = await enter();
  ({ page } = person);
  ({ origin } = new URL(page.url()));
  const { listeners } = JSON.parse(await postkey.command('status', '--json'));
  imap = listeners.find(({ protocol }) => protocol === 'imap').address.split(':').at(-1);
});

test('without an account, the first page says what to do', async () => {
  assert.equal(new URL(page.url()).pathname, '/add');
  await page.goto(`${origin}/`);
  await judge(page, 'overview-empty');
});

test('an address that is none is kept, with what is wrong about it', async () => {
  await page.goto(`${origin}/add`);
  await uncheck();
  await person.type('E-mail address', '"><script>no address');
  await person.press('Continue');
  await isWrong('E-mail address', /address/);
  assert.equal(await page.getByLabel('E-mail address').inputValue(), '"><script>no address');
  await judge(page, 'add-wrong-address');
});

test('a provider that nothing shows can be chosen', async () => {
  await begin(person, 'ann@unknown.test');
  await isWrong('Provider', /choose it/);
  assert.equal(await page.getByLabel('E-mail address').inputValue(), 'ann@unknown.test');
  await judge(page, 'add-choose-provider');
  await person.choose('Provider', 'known');
  await person.press('Continue');
  await person.sees('Set up ann@unknown.test');
});

test('the steps at a provider are shown one by one, with what to copy', async () => {
  const newcomer = await enter();
  await newcomer.page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
  await begin(newcomer, 'ann@outlook.com');
  await newcomer.sees('client registration');
  await newcomer.press('Copy http://localhost');
  assert.equal(await newcomer.page.evaluate(() => navigator.clipboard.readText()), 'http://localhost');
  await judge(newcomer.page, 'registration');
});

test('an address of a last page that is not it is refused', async () => {
  await page.getByText('The last page does not load').click();
  await person.type('Address of the last page', 'http://127.0.0.1/?nothing');
  await person.press('Continue with this address');
  await isWrong('Address of the last page', /./);
  await judge(page, 'sign-in-wrong-paste');
});

test('who signs in as somebody else can try again', async () => {
  await begin(person, ANN);
  await person.press('Sign in at', 'link');
  await person.signIn('mallory@example.test');
  await page.getByRole('alert').waitFor();
  assert.match(await page.getByRole('alert').textContent(), /mallory@example\.test/);
  await judge(page, 'sign-in-somebody-else');
});

test('who does not consent reads what happened', async () => {
  const other = await enter();
  await begin(other, 'bob@example.test');
  await other.press('Sign in at', 'link');
  await other.press('Cancel', 'link');
  await other.page.getByRole('alert').waitFor();
  assert.equal(await other.page.getByLabel('E-mail address').inputValue(), 'bob@example.test');
  await judge(other.page, 'sign-in-denied');
});

test('the password is shown once', async () => {
  const own = await enter();
  await begin(own, ANN);
  await own.press('Sign in at', 'link');
  await own.signIn(ANN);
  await own.sees(`${ANN} is set up`);
  password = await own.page.locator('#password').textContent();
  for (const protocol of ['IMAP', 'POP3', 'SMTP']) await own.page.getByText(`${protocol} works`).waitFor();
  await own.page.reload();
  assert.equal(await own.page.locator('#password').count(), 0);
  assert.ok(!(await own.page.content()).includes(password));
});

test('logins appear on the overview as they happen', async () => {
  await page.goto(`${origin}/`);
  await logIn(ANN, password);
  await page.getByRole('row', { name: ANN }).first().waitFor();
  await logIn(ANN, 'a password that is wrong');
  await page.getByText('refused').first().waitFor();
  await judge(page, 'overview');
});

test('an account can be looked at', async () => {
  await page.getByRole('link', { name: ANN }).first().click();
  await person.sees(ANN);
  await page.getByText('annie@example.test').waitFor();
  await page.getByText('office@example.test').waitFor();
  await judge(page, 'account');
});

test('another app password needs one that works', async () => {
  const adding = page.locator('form[action$="/passwords"]');
  await adding.getByLabel('Name').fill('Printer');
  await adding.getByLabel('app password').fill('a wrong one');
  await adding.getByRole('button').click();
  await page.locator('[aria-invalid=true]').first().waitFor();
  assert.equal(await adding.getByLabel('Name').inputValue(), 'Printer');
  await judge(page, 'account-wrong-password');
  await adding.getByLabel('IMAP').check();
  await adding.getByLabel('app password').fill(password);
  await adding.getByRole('button').click();
  await person.sees('New app password');
  await judge(page, 'new-password');
  const added = await page.locator('#password').textContent();
  assert.match(await logIn(ANN, added), /A\d+ OK/);
  await page.goto(`${origin}/accounts/${ANN}`);
  await page.getByRole('button', { name: 'Remove the app password Printer' }).click();
  await page.getByRole('heading', { name: 'Printer' }).waitFor({ state: 'detached' });
  assert.doesNotMatch(await logIn(ANN, added), /A\d+ OK.*(LOGIN|Logged in|AUTH)/i);
});

test('the mail program that was chosen is remembered', async () => {
  await page.goto(`${origin}/accounts/${ANN}`);
  await person.choose('Mail program', 'mutt and NeoMutt, in ~/.muttrc');
  await person.press('Show its settings');
  await person.sees('Settings for');
  await judge(page, 'settings');
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download muttrc' }).click()]);
  assert.match(readFileSync(await download.path(), 'utf8'), /^set from = /);
  await page.goto(`${origin}/accounts/${ANN}`);
  assert.equal(await page.getByLabel('Mail program', { exact: true }).inputValue(), 'mutt');
});

for (const [button, heading, name] of [['Test', 'Test of', 'test'], ['Examine', 'Report about', 'report']]) {
  test(`${name}: an account is looked into`, async () => {
    await page.goto(`${origin}/accounts/${ANN}`);
    const form = page.locator('form', { has: page.getByRole('button', { name: button, exact: true }) });
    await form.getByLabel('app password').fill(password);
    await form.getByRole('button').click();
    await person.sees(heading);
    await judge(page, name);
  });
}

test('a code can be entered on another device', async () => {
  await page.goto(`${origin}/add`);
  await person.type('E-mail address', 'device@example.test');
  await page.getByText('More', { exact: true }).click();
  await person.choose('How to sign in', 'On another device, with a code');
  await person.press('Continue');
  await page.locator('#code').waitFor();
  await judge(page, 'device-code');
  const device = new Person(await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage());
  await device.page.goto(await page.getByRole('link', { name: /^https:/ }).first().getAttribute('href'));
  await device.enterCode(await page.locator('#code').textContent(), 'device@example.test');
  await person.press('I have entered the code', 'link');
  await person.sees('device@example.test is set up');
});

test('two browsers set up two accounts at once', async () => {
  const people = await Promise.all([enter(), enter()]);
  const addresses = ['first@example.test', 'second@starttls.test'].map((one) => one.replace('starttls', 'discovered'));
  await Promise.all(people.map((one, index) => begin(one, addresses[index])));
  const [first, second] = people;
  await second.page.goto(first.page.url());
  assert.ok(!(await second.page.content()).includes(addresses[0]), 'one browser does not see what the other sets up');
  await second.page.goBack();
  await Promise.all(people.map(async (one, index) => {
    await one.press('Sign in at', 'link');
    await one.signIn(addresses[index]);
    await one.sees(`${addresses[index]} is set up`);
  }));
});

test('who signs in again keeps the app passwords', async () => {
  const again = await enter();
  await again.page.goto(`${origin}/accounts/${ANN}`);
  await again.press('Sign in again');
  await again.press('Sign in at', 'link');
  await again.signIn(ANN);
  await again.sees(`${ANN} is set up`);
  assert.equal(await again.page.locator('#password').count(), 0);
  assert.match(await logIn(ANN, password), /A\d+ OK/);
});

for (const [path, name] of [['/configuration', 'configuration'], ['/providers/known', 'provider'], ['/nothing', 'not-found']]) {
  test(`${name} is good to look at`, async () => {
    await page.goto(origin + path);
    await judge(page, name);
  });
}

test('a first login uses the same pages', async () => {
  const said = await logIn('eve@whole.test', 'the password of her mail program');
  const [link] = /http:\/\/127\.0\.0\.1:\d+\/\?authorize=\w+/.exec(said);
  const eve = new Person(await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage());
  await eve.page.goto(link);
  await judge(eve.page, 'first-login');
  await eve.press('Continue');
  await eve.signIn('eve@whole.test');
  await judge(eve.page, 'first-login-password');
  await eve.page.locator('input[type=password]').fill('the password of her mail program');
  await eve.page.getByRole('button').click();
  await eve.sees('Done');
  await judge(eve.page, 'first-login-done');
});

test('an account is forgotten after a warning', async () => {
  await page.goto(`${origin}/accounts/${ANN}`);
  await page.getByLabel(`I want to remove ${ANN}`).check();
  await person.press('Remove the account');
  await person.sees('is removed');
  await judge(page, 'forgotten');
  assert.ok(!(await postkey.command('status', '--json')).includes(ANN));
});

test('the page can be closed', async () => {
  await person.press('Close this page');
  await person.sees('closed');
  await judge(page, 'closed');
  await assert.rejects(fetch(origin));
});
