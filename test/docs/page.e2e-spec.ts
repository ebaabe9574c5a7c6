import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it } from '@jest/globals';
import { type Browser, chromium } from 'playwright-core';
import { createDatabase, type TestDatabase } from '../support/database.js';
import { freePort, ServiceProcess, serviceEnvironment } from '../support/service.js';

let database: TestDatabase;
let service: ServiceProcess;
let browser: Browser;

/** The browser that comes as a package needs nothing of the system; where it does not run, the system's. */
async function launch(): Promise<Browser> {
  const { default: packaged } = await import('@sparticuz/chromium');
  // In one process the browser ends with its first context; and what is looked at here is its security.
  const args = packaged.args.filter((arg) => !/^--(single-process|disable-web-security)$/.test(arg));
  try {
    return await chromium.launch({ executablePath: await packaged.executablePath(), args });
  } catch (error) {
    const system = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
    if (!system) throw error;
    return chromium.launch({ executablePath: system, args: ['--no-sandbox'] });
  }
}

beforeAll(async () => {
  database = await createDatabase();
  const port = await freePort();
  service = await ServiceProcess.start(
    serviceEnvironment(database, { PORT: port, ISSUER_URL: `http://localhost:${port}` }),
  );
  browser = await launch();
}, 60_000);

afterAll(async () => {
  await browser?.close();
  await service?.stop();
  await database?.drop();
});

describe('/docs', () => {
  it('LG-17 says in its Content-Security-Policy that nothing but its own files runs', async () => {
    const page = await fetch(`${service.url}/docs`);
    expect(page.status).toBe(200);
    expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(page.headers.get('content-security-policy')).toBe(
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; " +
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    expect(page.headers.get('cross-origin-opener-policy')).toBe('same-origin');
    expect(page.headers.get('x-content-type-options')).toBe('nosniff');
    const html = await page.text();
    expect(html).not.toMatch(/<style|<script>| style=| on\w+=/);
    expect(html.match(/(?:src|href)="[^"]*"/g)!.every((link) => /"\/(docs\/|openapi\.json)/.test(link))).toBe(true);
  });

  it('SC-11 serves no source map, and of the package only what the page needs', async () => {
    for (const name of [
      'swagger-ui-bundle.js.map',
      'swagger-ui.css.map',
      'index.html',
      'package.json',
      '../package.json',
    ])
      expect([name, (await fetch(`${service.url}/docs/${name}`)).status]).toEqual([name, 404]);
  });

  it.each([
    [1280, 'light', 'rgb(255, 255, 255)'],
    [1280, 'dark', 'rgb(28, 32, 34)'],
    [390, 'light', 'rgb(255, 255, 255)'],
    [390, 'dark', 'rgb(28, 32, 34)'],
  ] as const)(
    'renders every operation %i pixels wide, %s, without an error',
    async (width, colorScheme, background) => {
      const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
      const page = await context.newPage();
      page.setDefaultTimeout(10_000);
      const said: string[] = [];
      page.on('console', (message) => said.push(`${message.type()}: ${message.text()}`));
      page.on('pageerror', (error) => said.push(error.message));
      page.on('requestfailed', (request) => said.push(`failed: ${request.url()}`));
      page.on(
        'response',
        (response) => response.status() >= 400 && said.push(`${response.status()}: ${response.url()}`),
      );
      await page.goto(`${service.url.replace('127.0.0.1', 'localhost')}/docs`);
      await page.waitForSelector('.opblock');
      // biome-ignore lint/suspicious/noExplicitAny: the document is checked elsewhere
      const { paths }: any = await (await fetch(`${service.url}/openapi.json`)).json();
      // biome-ignore lint/suspicious/noExplicitAny: see above
      const operations = Object.values<any>(paths).flatMap((item) => Object.keys(item));
      expect(await page.locator('.opblock').count()).toBe(operations.length);
      await page.locator('.opblock-summary-control', { hasText: 'Issue an access token' }).click();
      const open = page.locator('.opblock-body');
      await open.waitFor();
      expect(await open.innerText()).toContain('client_secret');
      // Nothing lies beyond the edge, and the colours are those asked for.
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(width);
      expect(await page.evaluate('getComputedStyle(document.body).backgroundColor')).toBe(background);
      expect(said).toEqual([]);
      // The control: the browser does enforce the policy, and says so.
      await page.evaluate(
        `document.body.append(Object.assign(document.createElement('script'), { text: 'alert(1)' }))`,
      );
      expect(said).toEqual([expect.stringContaining('Content Security Policy')]);
      await context.close();
    },
  );
});
