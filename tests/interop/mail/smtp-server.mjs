// npm's smtp-server as a submission server that takes XOAUTH2 and nothing else.
//
//   node smtp-server.mjs SETTINGS.json
//
// Settings: tls and starttls (ports), certificate and key (PEM files), introspection (URL), sink (a port): a mail is accepted
// as soon as the sink has it.

import { readFileSync } from 'node:fs';
import net from 'node:net';

import { SMTPServer } from 'smtp-server';

const settings = JSON.parse(readFileSync(process.argv[2], 'utf8'));

async function onAuth(auth, _session, callback) {
  const body = new URLSearchParams({ token: auth.accessToken ?? '' });
  const answer = await (await fetch(settings.introspection, { method: 'POST', body })).json();
  if (answer.active && answer.sub === auth.username) callback(null, { user: auth.username });
  else callback(null, { data: { status: '401', schemes: 'bearer mac', scope: 'mail' } });
}

/** Hands a mail on as it is. */
function deliver(mail) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(settings.sink, '127.0.0.1');
    const lines = ['HELO x\r\n', 'MAIL FROM:<>\r\n', 'RCPT TO:<x@x>\r\n', 'DATA\r\n', Buffer.concat([mail, Buffer.from('\r\n.\r\n')]), 'QUIT\r\n'];
    socket.on('data', () => (lines.length ? socket.write(lines.shift()) : resolve()));
    socket.on('error', reject);
  });
}

function onData(stream, _session, callback) {
  const pieces = [];
  stream.on('data', (piece) => pieces.push(piece));
  stream.on('end', () => deliver(Buffer.concat(pieces)).then(() => callback(), callback));
}

const common = { key: readFileSync(settings.key), cert: readFileSync(settings.certificate), authMethods: ['XOAUTH2'], onAuth, onData };
for (const [port, secure] of [[settings.tls, true], [settings.starttls, false]]) {
  const server = new SMTPServer({ ...common, secure, disabledCommands: secure ? ['STARTTLS'] : [] });
  server.on('error', (error) => console.error(`error: ${error.message}`));
  server.listen(port, '127.0.0.1');
}
