// Has DavMail's own classes write its properties, as after a person has signed in: `DavMail.java FILE ADDRESS NAME=VALUE...`,
// with the password and the refresh token as the lines of standard input.
import davmail.Settings;
import davmail.util.StringEncryptor;
import java.util.Scanner;

public class DavMail {
    public static void main(String[] arguments) throws Exception {
        Settings.setConfigFilePath(arguments[0]);
        Settings.load();
        for (int i = 2; i < arguments.length; i++) {
            String[] property = arguments[i].split("=", 2);
            Settings.setProperty(property[0], property[1]);
        }
        Settings.save();
        Scanner input = new Scanner(System.in);
        String encrypted = new StringEncryptor(input.nextLine()).encryptString(input.nextLine());
        Settings.storeRefreshToken(arguments[1], encrypted);
    }
}
