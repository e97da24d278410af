# Net::POP3 of Perl itself: `net-pop3.pl fetch FILE`.
use strict;
use warnings;
use Net::POP3;

my ($action, $file) = @ARGV;
my @trust = (SSL_ca_path => '/etc/ssl/certs');
my $pop3 = Net::POP3->new($ENV{SERVER}, Port => $ENV{PORT}, SSL => $ENV{SECURITY} eq 'tls', @trust) or die "no connection: $@\n";
if ($ENV{SECURITY} eq 'starttls') {
    $pop3->starttls(@trust) or die "STLS: " . $pop3->message . "\n";
}
defined $pop3->login($ENV{LOGIN}, $ENV{PASSWORD}) or die "login: " . $pop3->message . "\n";
open(my $sink, '>:raw', $file) or die;
print $sink @{ $pop3->get(1) };
$pop3->quit;
