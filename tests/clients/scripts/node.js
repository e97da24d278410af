// nodemailer and imapflow, behind the settings block: `node.js fetch|append|stay|send FILE`.
const fs = require('node:fs');
const [action, file] = process.argv.slice(2);

async function source(number) {
  return (await client.fetchOne(number, { source: true })).source;
}

async function main() {
  if (action === 'send') {
    const to = process.env.LOGIN;
    await transport.sendMail({ envelope: { from: to, to }, raw: fs.readFileSync(file) });
    return;
  }
  client.on('close', () => console.log('closed'));
  await client.connect();
  await client.mailboxOpen('INBOX');
  if (action === 'fetch') fs.writeFileSync(file, await source('1'));
  if (action === 'append') await client.append('INBOX', fs.readFileSync(file));
  if (action === 'stay') {
    client.on('exists', async ({ count }) => console.log('new', (await source(String(count))).toString()));
    console.log('ready');
    return;
  }
  await client.logout();
}

client.on('error', (error) => { console.log('error', error.message); process.exitCode = 1; });
main().catch((error) => { console.error(error.response ?? error); process.exit(1); });
