// What the tests start: postkey in a folder of its own, and Chromium.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after } from 'node:test';
import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

export const world = JSON.parse(readFileSync(process.env.WORLD, 'utf8'));

// Chromium refuses to run as root with its sandbox. Everything else keeps it quiet.
const ARGUMENTS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

// What to end when the tests of a file are over. `after` inside of a hook or a test would belong to that.
const ends = [];
after(() => Promise.all(ends.map((end) => end())));

/** Has something done when the tests of the file are over. */
export const atTheEnd = (end) => ends.push(end);

/** Starts a browser. */
export async function startBrowser(...more) {
  const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: [...ARGUMENTS, ...more] });
  atTheEnd(() => browser.close());
  return browser;
}

/** A program whose output can be waited for. */
class Running {
  constructor(command, options) {
    this.child = spawn(command[0], command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    this.output = '';
    this.waiting = [];
    for (const stream of [this.child.stdout, this.child.stderr]) createInterface(stream).on('line', (line) => this.note(line));
    this.ended = new Promise((resolve) => this.child.once('close', resolve));
    this.ended.then((code) => this.waiting.forEach(({ reject }) => reject(new Error(`ended with ${code}:\n${this.output}`))));
  }

  note(line) {
    this.output += `${line}\n`;
    this.waiting = this.waiting.filter(({ pattern, resolve }) => {
      const found = pattern.exec(this.output);
      if (found) resolve(found);
      return !found;
    });
  }

  /** Waits until the output matches. */
  says(pattern) {
    return new Promise((resolve, reject) => {
      this.waiting.push({ pattern, resolve, reject });
      this.note('');
    });
  }

  async stop() {
    this.child.kill('SIGTERM');
    return this.ended;
  }
}

/** Leads to a server when it is opened, and to nothing after it was closed. */
export class Gate {
  static async start(port) {
    const gate = new Gate();
    const opened = new Promise((resolve) => { gate.open = resolve; });
    gate.sockets = new Set();
    gate.server = net.createServer(async (client) => {
      gate.keep(client);
      await opened;
      const server = net.connect(port, '127.0.0.1');
      gate.keep(server);
      client.pipe(server).pipe(client);
    });
    await new Promise((resolve) => gate.server.listen(0, '127.0.0.1', resolve));
    gate.port = gate.server.address().port;
    atTheEnd(() => gate.close());
    return gate;
  }

  keep(socket) {
    this.sockets.add(socket.on('error', () => socket.destroy()).on('close', () => this.sockets.delete(socket)));
  }

  close() {
    this.server.close();
    this.sockets.forEach((socket) => socket.destroy());
  }
}

/** One configuration and its vault. */
export class Postkey {
  constructor(name, more = '') {
    this.folder = mkdtempSync(path.join(world.folder, `${name}-`));
    this.configuration = path.join(this.folder, 'postkey.toml');
    writeFileSync(this.configuration, world.configuration.replaceAll('FOLDER', this.folder) + more, { mode: 0o600 });
    mkdirSync(path.join(this.folder, 'home'));
    this.environment = { PATH: process.env.PATH, HOME: path.join(this.folder, 'home') };
  }

  /** A postkey whose daemon runs. */
  static async start(name, more) {
    const postkey = new Postkey(name, more);
    await postkey.serve();
    return postkey;
  }

  /** Starts the daemon. */
  async serve() {
    this.daemon = this.run();
    await this.daemon.says(/(: listening on [^]*){3}/);
  }

  /** Starts a command. */
  run(...command) {
    const running = new Running([world.postkey, '--config', this.configuration, ...command], { env: this.environment });
    atTheEnd(() => running.stop());
    return running;
  }

  /** Runs a command to its end. Returns what it prints. */
  async command(...command) {
    const running = this.run(...command);
    const code = await running.ended;
    if (code !== 0) throw new Error(`postkey ${command.join(' ')} ends with ${code}:\n${running.output}`);
    return running.output;
  }

  /** Asks for a page. Returns its link, which is good once. */
  async link() {
    this.web = this.run('web', '--no-browser');
    return (await this.web.says(/http:\/\/\S+\/enter\/\S+/))[0];
  }
}

/** Asks the authorization server's driver; see tests/real/authorization-server.mjs. */
export async function administer(route, content) {
  const options = content === undefined ? {} : { method: 'POST', body: JSON.stringify(content) };
  return (await fetch(`${world.administration}/${route}`, options)).json();
}
