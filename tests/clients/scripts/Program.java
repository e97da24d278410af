// Jakarta Mail, around the settings block: `Program.java fetch|append|stay|send FILE`.
import jakarta.mail.*;
import jakarta.mail.event.*;
import jakarta.mail.internet.*;
import java.io.*;
import java.util.Properties;

public class Program {
    static String text(Message message) throws Exception {
        var bytes = new ByteArrayOutputStream();
        message.writeTo(bytes);
        return bytes.toString("UTF-8");
    }

    public static void main(String[] arguments) throws Exception {
        String action = arguments[0], file = arguments[1];
        //SETTINGS
        if (action.equals("send")) {
            var to = new InternetAddress(System.getenv("LOGIN"));
            try (Transport transport = session.getTransport("smtp"); var source = new FileInputStream(file)) {
                transport.connect();
                transport.sendMessage(new MimeMessage(session, source), new Address[] {to});
            }
            return;
        }
        Store store = session.getStore("imap");
        store.connect();
        Folder folder = store.getFolder("INBOX");
        folder.open(Folder.READ_WRITE);
        if (action.equals("fetch")) {
            try (var sink = new FileOutputStream(file)) {
                folder.getMessage(1).writeTo(sink);
            }
        } else if (action.equals("append")) {
            try (var source = new FileInputStream(file)) {
                folder.appendMessages(new Message[] {new MimeMessage(session, source)});
            }
        } else {
            folder.addMessageCountListener(new MessageCountAdapter() {
                public void messagesAdded(MessageCountEvent event) {
                    for (Message message : event.getMessages()) {
                        try {
                            System.out.println("new " + text(message));
                        } catch (Exception error) {
                            System.out.println(error);
                        }
                    }
                }
            });
            System.out.println("ready");
            while (true) {
                ((com.sun.mail.imap.IMAPFolder) folder).idle();
            }
        }
        store.close();
    }
}
