//! Machines without IPv6 and the like, simulated in network namespaces.

use crate::support::process::{Ended, Process};
use crate::support::skipped::skipped;

/// Where the service manager runs the program: in a separate network namespace, after this was done to it.
fn machine(network: &str) -> String {
    format!(
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin exec unshare --net /bin/bash -c '{network}; exec \"$0\" \"$@\"' \"$0\" \"$@\""
    )
}

const WITHOUT_IPV6: &str = "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; ip link set lo up";

/// None if this process may not make namespaces.
fn start(network: &str, config: &str) -> Option<(tempfile::TempDir, Process)> {
    if !rustix::process::geteuid().is_root() {
        skipped("only root can make a network namespace");
        return None;
    }
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("postkey.toml");
    std::fs::write(&file, format!("state_dir = \"state\"\n{config}")).unwrap();
    let arguments = ["--config", file.to_str().unwrap()];
    let process = Process::start_by(&machine(network), home.path(), &arguments, &[]);
    Some((home, process))
}

#[test]
fn without_ipv6_the_default_and_the_shipped_configuration_serve_by_ipv4() {
    for config in ["", include_str!("../../config/postkey.toml")] {
        let Some((_home, mut process)) = start(WITHOUT_IPV6, config) else { return };
        for port in [1143, 1110, 1587] {
            let line = process.hear_complaint(&format!("not listening on [::1]:{port}"));
            assert!(line.contains("INFO") && line.contains("this machine does not have the address"), "{line}");
        }
        for port in [1143, 1110, 1587] {
            process.hear_complaint(&format!("listening on 127.0.0.1:{port}"));
        }
        let Ended { code, err, .. } = process.terminate();
        assert_eq!(code, Some(0), "{err}");
    }
}

#[test]
fn a_listener_of_which_the_machine_has_no_address_is_an_error_that_says_so() {
    let listener = |addresses: &str| format!("[[listener]]\nprotocol = \"imap\"\naddress = {addresses}\n");
    for (network, config) in [
        (WITHOUT_IPV6, listener("\"[::1]:1143\"")),
        (WITHOUT_IPV6, listener("[\"[::1]:1143\", \"[::1]:1144\"]")),
        (WITHOUT_IPV6, listener("\"127.0.0.1:1143\"") + &listener("\"[::1]:1144\"")),
    ] {
        let Some((_home, process)) = start(network, &config) else { return };
        let Ended { code, err, .. } = process.end();
        assert_eq!(code, Some(71), "{err}");
        assert!(err.contains("this machine does not have that address"), "{err}");
        assert!(!err.contains("another postkey"), "{err}");
    }
}

#[test]
fn one_loopback_address_is_enough() {
    let only_ipv6 = "ip link set lo up; ip address del 127.0.0.1/8 dev lo";
    let Some((_home, mut process)) = start(only_ipv6, "") else { return };
    process.hear_complaint("not listening on 127.0.0.1:1143");
    process.hear_complaint("listening on [::1]:1143");
    assert_eq!(process.terminate().code, Some(0));
}

/// Every user has all addresses of a machine, and after the end of a connection the kernel no longer says whose it was.
#[test]
fn a_user_with_the_address_of_a_load_balancer_on_this_machine_can_claim_no_other() {
    let network = "ip link set lo up; ip address add 192.0.2.10/32 dev lo; \
                   { (until exec 3<>/dev/tcp/192.0.2.10/1993; do sleep 0.1; done; echo PROXY UNKNOWN >&3) 2>/dev/null & }";
    let listener = "log = \"info\"\n[[listener]]\nprotocol = \"imap\"\naddress = \"192.0.2.10:1993\"\nsecurity = \"tls\"\n\
                    certificate = \"own\"\nallow_remote = true\nproxy_protocol = [\"192.0.2.10\"]\n";
    let Some((_home, mut process)) = start(network, listener) else { return };
    process.hear_complaint("IMAP connection from 192.0.2.10 turned away: it comes from this machine");
    assert_eq!(process.terminate().code, Some(0));
}
