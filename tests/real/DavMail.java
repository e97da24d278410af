// Has DavMail's own classes write its properties, as after a person has signed in: `DavMail.java FILE ADDRESS NAME=VALUE...`,
// with the password in the variable PASSWORD and the refresh token in TOKEN.
import davmail.Settings;
import davmail.util.StringEncryptor;

public class DavMail {
    public static void main(String[] arguments) throws Exception {
        Settings.setConfigFilePath(arguments[0]);
        Settings.load();
        for (int i = 2; i < arguments.length; i++) {
            String[] property = arguments[i].split("=", 2);
            Settings.setProperty(property[0], property[1]);
        }
        Settings.save();
        String encrypted = new StringEncryptor(System.getenv("PASSWORD")).encryptString(System.getenv("TOKEN"));
        Settings.storeRefreshToken(arguments[1], encrypted);
    }
}
