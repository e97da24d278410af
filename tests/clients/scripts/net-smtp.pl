# Net::SMTP of Perl itself: `net-smtp.pl send FILE`.
use strict;
use warnings;
use Net::SMTP;

my ($action, $file) = @ARGV;
my @trust = (SSL_ca_path => '/etc/ssl/certs');
my $smtp = Net::SMTP->new($ENV{SERVER}, Port => $ENV{PORT}, SSL => $ENV{SECURITY} eq 'tls', @trust) or die "no connection: $@\n";
if ($ENV{SECURITY} eq 'starttls') {
    $smtp->starttls(@trust) or die "STARTTLS: " . $smtp->message . "\n";
}
$smtp->auth($ENV{LOGIN}, $ENV{PASSWORD}) or die "login: " . $smtp->message . "\n";
$smtp->mail($ENV{LOGIN}, Bits => 8) or die "MAIL: " . $smtp->message . "\n";
$smtp->to($ENV{LOGIN}) or die "RCPT: " . $smtp->message . "\n";
open(my $source, '<:raw', $file) or die;
$smtp->data([<$source>]) or die "DATA: " . $smtp->message . "\n";
$smtp->quit;
