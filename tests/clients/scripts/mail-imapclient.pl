# Mail::IMAPClient: `mail-imapclient.pl fetch|append|stay FILE`.
use strict;
use warnings;
use Mail::IMAPClient;

$| = 1;
my ($action, $file) = @ARGV;
my $trust = [SSL_ca_path => '/etc/ssl/certs', SSL_verify_mode => 1];
my $imap = Mail::IMAPClient->new(
    Server => $ENV{SERVER}, Port => $ENV{PORT}, User => $ENV{LOGIN}, Password => $ENV{PASSWORD}, Uid => 0, Timeout => 60,
    ($ENV{SECURITY} eq 'tls' ? (Ssl => $trust) : ()), ($ENV{SECURITY} eq 'starttls' ? (Starttls => $trust) : ()),
) or die "no login: $@\n";
$imap->select('INBOX') or die "select: $@\n";
if ($action eq 'fetch') {
    open(my $sink, '>:raw', $file) or die;
    print $sink $imap->message_string(1);
} elsif ($action eq 'append') {
    open(my $source, '<:raw', $file) or die;
    local $/;
    $imap->append('INBOX', <$source>) or die "append: $@\n";
} else {
    my $seen = $imap->message_count;
    my $tag = $imap->idle or die "idle: $@\n";
    print "ready\n";
    while (1) {
        my $said = $imap->idle_data(1) or die "idle: $@\n";
        next unless @$said;
        $imap->done($tag) or die "done: $@\n";
        my $count = $imap->message_count;
        die "count: $@\n" unless defined $count;
        print "new ", $imap->message_string($_), "\n" for $seen + 1 .. $count;
        $seen = $count;
        $tag = $imap->idle or die "idle: $@\n";
    }
}
$imap->logout;
