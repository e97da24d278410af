# Net::IMAP::Simple: `net-imap-simple.pl fetch|append|stay FILE`.
use strict;
use warnings;
use Net::IMAP::Simple;

my ($action, $file) = @ARGV;
my $imap = Net::IMAP::Simple->new("$ENV{SERVER}:$ENV{PORT}", use_ssl => $ENV{SECURITY} eq 'tls',
    ssl_options => { SSL_ca_path => '/etc/ssl/certs' }) or die "no connection: $Net::IMAP::Simple::errstr\n";
if ($ENV{SECURITY} eq 'starttls') {
    $imap->starttls(SSL_ca_path => '/etc/ssl/certs') or die "STARTTLS: " . $imap->errstr . "\n";
}
$imap->login($ENV{LOGIN}, $ENV{PASSWORD}) or die "login: " . $imap->errstr . "\n";
my $count = $imap->select('INBOX') // die "select: " . $imap->errstr . "\n";
if ($action eq 'fetch') {
    open(my $sink, '>:raw', $file) or die;
    print $sink join('', @{ $imap->get(1) });
} elsif ($action eq 'append') {
    open(my $source, '<:raw', $file) or die;
    $imap->put('INBOX', [<$source>]) or die "append: " . $imap->errstr . "\n";
}
$imap->quit;
