//! Compares this machine's clock with that of the authorization server.

use super::finding::Finding;
use crate::clock::Moment;
use crate::exit::Exit;

const SUBJECT: &str = "clock";

/// Seconds by which the two may differ, which servers tolerate in assertions and id_tokens.
const TOLERATED: u64 = 300;

/// Compares our time with the server's, which is None if it is not known.
pub fn examine(ours: Moment, theirs: Option<Moment>) -> Finding {
    let Some(theirs) = theirs else {
        return Finding::skipped(SUBJECT, format!("it is {ours} here; the authorization server does not say its time"));
    };
    let (ahead, behind) = (ours.since(theirs), theirs.since(ours));
    let (off, direction) = if ahead > 0 { (ahead, "ahead") } else { (behind, "behind") };
    if off <= TOLERATED {
        return Finding::ok(SUBJECT, format!("it is {ours} here, within {off} s of the authorization server's time"));
    }
    let text = format!(
        "it is {ours} here and {theirs} at the authorization server: this machine's clock is {off} s {direction}, so tokens \
         and certificates seem expired or not valid yet; set it right, and keep it right with NTP"
    );
    Finding::problem(SUBJECT, Exit::Os, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_tolerated_in_both_directions() {
        let theirs = Moment(1_000_000);
        for (ours, words) in [
            (Moment(1_000_300), None),
            (Moment(999_700), None),
            (Moment(1_000_301), Some("301 s ahead")),
            (Moment(999_699), Some("301 s behind")),
        ] {
            let found = examine(ours, Some(theirs));
            assert_eq!(found.is_problem(), words.is_some());
            assert!(found.text.contains(words.unwrap_or("within 300 s")), "{}", found.text);
        }
        assert!(!examine(theirs, None).is_problem());
    }
}
