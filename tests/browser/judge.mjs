// What has to be true of every page, and its pictures.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

import { world } from './world.mjs';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

// The narrowest that anybody uses, which is also a window of 1280 pixels at 400 % (WCAG 1.4.10), and a usual window.
const WIDTHS = [320, 1000];

// The pages of which docs/guide has a picture.
const IN_GUIDE = ['add', 'registration', 'set-up', 'overview'];

/** Judges the page in both colour schemes and at both widths, and takes pictures of it. */
export async function judge(page, name) {
  await page.evaluate(AXE);
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme });
    for (const width of WIDTHS) {
      await page.setViewportSize({ width, height: 800 });
      const where = `${name}, ${width} px, ${colorScheme}`;
      await page.screenshot({ path: path.join(world.pictures, `${name}-${width}-${colorScheme}.png`), fullPage: true });
      assert.deepEqual(await tooWide(page), [], `${where}: wider than the window`);
      assert.deepEqual(await violations(page), [], where);
    }
  }
  await page.emulateMedia({ colorScheme: 'light' });
  assert.equal(await page.locator('h1').count(), 1, `${name}: one h1`);
  if (world.guide && IN_GUIDE.includes(name)) {
    await page.setViewportSize({ width: 760, height: 640 });
    await page.screenshot({ path: path.join(world.guide, `browser-${name}.png`) });
  }
}

/** The elements that reach beyond the right edge, if the page has a horizontal scroll bar. */
function tooWide(page) {
  return page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const all = [...document.querySelectorAll('body *')];
    return all.filter((one) => one.getBoundingClientRect().right > width).map((one) => one.outerHTML.slice(0, 200));
  });
}

/** What axe-core finds, with the elements. */
async function violations(page) {
  const found = await page.evaluate(() => globalThis.axe.run());
  return found.violations.map(({ id, help, nodes }) => ({ id, help, nodes: nodes.map(({ html, any }) => [html.slice(0, 200), any[0]?.message]) }));
}
