// What a person does in Thunderbird, for Marionette: the first argument is the name of a function here, the others are its own.
const module = (name) => ChromeUtils.importESModule(`resource:///modules/${name}.sys.mjs`);
const { MailServices } = module('MailServices');
const window = Services.wm.getMostRecentWindow('mail:3pane');
const server = () => MailServices.accounts.allServers.find((one) => one.type === 'imap' || one.type === 'pop3');
const inbox = () => server().rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);

// A promise and the listener that keeps it.
function listening(extra = {}) {
  const { promise, resolve, reject } = Promise.withResolvers();
  const ended = (status) => (Components.isSuccessCode(status) ? resolve() : reject(new Error(`status ${status.toString(16)}`)));
  return [promise, { OnStartRunningUrl() {}, OnStopRunningUrl: (_, status) => ended(status), ended, ...extra }];
}

const functions = {
  // Notes the text of every dialogue, and closes it without an answer, as a person does who does not know one.
  dismissDialogues() {
    window.dialogues = [];
    Services.obs.addObserver((dialogue) => {
      window.dialogues.push(dialogue.Dialog.args.text);
      const cancel = ['button2', 'button1', 'button0'].map((name) => dialogue.Dialog.ui[name]);
      dialogue.setTimeout(() => cancel[dialogue.Dialog.args.button2Label ? 0 : 1].click(), 200);
    }, 'common-dialog-loaded');
  },

  dialogues: () => window.dialogues,

  // "Certificates", "Manage Certificates", "Authorities", "Import".
  importAuthority(base64) {
    Cc['@mozilla.org/security/x509certdb;1'].getService(Ci.nsIX509CertDB).addCertFromBase64(base64, 'CT,,');
  },

  // "Add Mail Account", "Configure manually". The first login is that of its check.
  async setUp(settings) {
    const config = new (module('accountcreation/AccountConfig').AccountConfig)();
    config.identity = { realname: 'Ann', emailAddress: settings.address };
    config.rememberPassword = true;
    for (const [part, factory] of [['incoming', 'createNewIncoming'], ['outgoing', 'createNewOutgoing']]) {
      config[part] = Object.assign(config[factory](), settings[part]);
    }
    const { ConfigVerifier } = module('accountcreation/ConfigVerifier');
    const { CreateInBackend } = module('accountcreation/CreateInBackend');
    const abort = new window.AbortController();
    await CreateInBackend.createAccountInBackend(await new ConfigVerifier(window.msgWindow, abort.signal).verifyConfig(config, false));
  },

  // "Get Messages".
  async getMessages() {
    const [done, listener] = listening();
    inbox().getNewMessages(window.msgWindow, listener);
    await done;
  },

  subjects: () => [...inbox().messages].map((message) => message.subject),

  // The source of the only message, as the program has it.
  async save(file) {
    const [message] = [...inbox().messages];
    const uri = inbox().getUriForMsg(message);
    const parts = [];
    const [done, listener] = listening({
      QueryInterface: ChromeUtils.generateQI(['nsIStreamListener']),
      onStartRequest() {},
      onDataAvailable(_, stream, offset, count) {
        const bytes = Cc['@mozilla.org/binaryinputstream;1'].createInstance(Ci.nsIBinaryInputStream);
        bytes.setInputStream(stream);
        parts.push(new Uint8Array(bytes.readByteArray(count)));
      },
      onStopRequest: (_, status) => listener.ended(status),
    });
    MailServices.messageServiceFromURI(uri).streamMessage(uri, listener, null, null, false, '', false);
    await done;
    const content = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
    parts.reduce((at, part) => (content.set(part, at), at + part.length), 0);
    await window.IOUtils.write(file, content);
  },

  // "Send". `deliver` keeps the file as it is, where the composer would encode the text.
  async send(file, address) {
    const identity = MailServices.accounts.defaultAccount.defaultIdentity;
    const fields = Cc['@mozilla.org/messengercompose/composefields;1'].createInstance(Ci.nsIMsgCompFields);
    fields.to = address;
    fields.from = identity.email;
    const [done, listener] = listening({
      QueryInterface: ChromeUtils.generateQI(['nsIMsgSendListener']),
      onStartSending() {}, onSendProgress() {}, onProgress() {}, onStatus() {}, onGetDraftFolderURI() {}, onSendNotPerformed() {},
      onTransportSecurityError: (id, status) => listener.ended(status),
      onStopSending: (id, status) => listener.ended(status),
    });
    identity.doFcc = false;
    const source = Cc['@mozilla.org/file/local;1'].createInstance(Ci.nsIFile);
    source.initWithPath(file);
    const { MessageSend } = module('MessageSend');
    new MessageSend().sendMessageFile(identity, '', fields, source, false, false, Ci.nsIMsgSend.nsMsgDeliverNow, null, listener, '');
    await done;
  },

  // Selects the inbox; Thunderbird then waits in IDLE.
  open: () => inbox().updateFolder(window.msgWindow),
};

const [name, ...rest] = arguments;
return functions[name](...rest);
