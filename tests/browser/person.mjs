// A person in front of the browser, who finds everything by the words beside it. What it takes is counted.

import assert from 'node:assert/strict';

// More than any page has.
const TAB_STOPS = 80;

/** Somebody with a mouse. */
export class Person {
  constructor(page) {
    this.page = page;
    this.fields = 0;
    this.clicks = 0;
  }

  /** Types into a field. */
  async type(label, text) {
    this.fields += 1;
    await this.fill(this.page.getByLabel(label, { exact: true }), text);
  }

  /** Chooses from a list. */
  async choose(label, option) {
    this.fields += 1;
    await this.select(this.page.getByLabel(label, { exact: true }), option);
  }

  /** Presses a button, or follows a link. */
  async press(words, role = 'button') {
    this.clicks += 1;
    await this.activate(this.page.getByRole(role, { name: words }).first());
  }

  fill(field, text) {
    return field.fill(text);
  }

  select(list, option) {
    return list.selectOption({ label: option });
  }

  activate(control) {
    return control.click();
  }

  /** Signs in at the provider, which takes any password, and consents. The browser returns, unless it is elsewhere. */
  async signIn(address, { returns = true } = {}) {
    await this.page.waitForURL(/^https:/);
    for (const [field, text] of [['Enter any login', address], ['and password', 'any']]) {
      this.fields += 1;
      await this.fill(this.page.getByPlaceholder(field), text);
    }
    await this.press('Sign-in');
    await this.press('Continue');
    // The last page may come slowly.
    if (returns) await this.page.waitForURL(/^http:/, { waitUntil: 'commit' });
  }

  /** Signs in on the page for codes of other devices. */
  async enterCode(code, address) {
    const answers = { 'input[name=user_code]:visible': code, 'input[name=login]': address, 'input[name=password]': 'any' };
    while (await this.page.locator('button[type=submit]').count()) {
      for (const [field, text] of Object.entries(answers)) {
        if (await this.page.locator(field).count()) await this.fill(this.page.locator(field), text);
      }
      await Promise.all([this.page.waitForEvent('load'), this.activate(this.page.locator('button[type=submit]').first())]);
    }
  }

  /** Waits for a heading. */
  async sees(heading) {
    await this.page.getByRole('heading', { name: heading }).first().waitFor();
  }

  get effort() {
    return `${this.fields} fields and ${this.clicks} clicks`;
  }
}

/** Somebody with a keyboard only. What has the focus must be visible. */
export class Typist extends Person {
  async fill(field, text) {
    await this.reach(field);
    await this.page.keyboard.press('Control+A');
    await this.page.keyboard.type(text);
  }

  async select(list, option) {
    await this.reach(list);
    await this.page.keyboard.type(option);
  }

  async activate(control) {
    await this.reach(control);
    await this.page.keyboard.press('Enter');
  }

  /** Presses the tab key until this has the focus. */
  async reach(target) {
    await target.waitFor();
    for (let stop = 0; stop < TAB_STOPS; stop += 1) {
      if (await target.evaluate((one) => one === document.activeElement)) return;
      await this.page.keyboard.press('Tab');
      assert.ok(await this.focusIsVisible(), `the focus is visible on ${await this.focused()}`);
    }
    assert.fail(`${target} cannot be reached by the tab key`);
  }

  focusIsVisible() {
    return this.page.evaluate(() => {
      const one = document.activeElement;
      if (one === document.body) return true;
      const { outlineStyle, outlineWidth } = getComputedStyle(one);
      const { width, height, top, right } = one.getBoundingClientRect();
      return outlineStyle !== 'none' && outlineWidth !== '0px' && width > 1 && height > 1 && top >= 0 && right > 0;
    });
  }

  focused() {
    return this.page.evaluate(() => document.activeElement.outerHTML.slice(0, 200));
  }
}
