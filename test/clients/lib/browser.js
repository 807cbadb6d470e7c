// A Chromium with a profile of its own, for the tests that need one.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import * as settings from './settings.js';

export async function launch() {
  const profile = await mkdtemp(join(tmpdir(), 'sockudo-chromium-'));
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: settings.chromium(),
    headless: true,
    args: [
      '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
      '--disable-background-networking', '--disable-component-update', '--disable-sync',
    ],
  });
  return {
    newPage: () => context.newPage(),
    async close() {
      await context.close();
      await rm(profile, { recursive: true, force: true });
    },
  };
}
