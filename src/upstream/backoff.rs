//! The pause that a provider asks for in the text of its refusal.

/// The words before the number in Exchange's text, in lower case.
const WORDS: &str = "suggested backoff time:";

/// Returns the requested pause in milliseconds, if there is one: "Suggested Backoff Time: 30000 milliseconds".
pub fn backoff(said: &str) -> Option<u64> {
    let said = said.to_ascii_lowercase();
    let (_, rest) = said.split_once(WORDS)?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, unit) = rest.split_at(digits);
    // A number with too many digits is a long time.
    let number = if number.is_empty() { return None } else { number.parse().unwrap_or(u64::MAX) };
    let unit = unit.trim_start();
    match () {
        () if unit.starts_with("sec") || unit.starts_with("s.") => Some(number.saturating_mul(1000)),
        () if unit.starts_with("min") => Some(number.saturating_mul(60_000)),
        () => Some(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_a_number_and_its_unit() {
        let seconds = |said| backoff(said).map(|milliseconds| milliseconds / 1000);
        assert_eq!(seconds("BAD Request is throttled. Suggested Backoff Time: 30000 milliseconds"), Some(30));
        assert_eq!(seconds("SUGGESTED BACKOFF TIME:90000"), Some(90));
        assert_eq!(seconds("Suggested Backoff Time: 45 seconds"), Some(45));
        assert_eq!(seconds("Suggested Backoff Time: 2 minutes."), Some(120));
        assert_eq!(seconds("Suggested Backoff Time: 99999999999999999999999 milliseconds"), Some(u64::MAX / 1000));
        for said in ["Suggested Backoff Time: soon", "Suggested Backoff Time: ", "Request is throttled.", ""] {
            assert_eq!(seconds(said), None, "{said}");
        }
    }
}
