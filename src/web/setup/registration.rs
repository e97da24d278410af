//! How to register a client at a provider, step by step. The steps are those of the provider's page in docs/guide, so that
//! there is one text.

use crate::config::provider::Provider;

const GOOGLE: &str = include_str!("../../../docs/guide/providers/google.md");
const MICROSOFT: &str = include_str!("../../../docs/guide/providers/microsoft.md");

/// The pages of the guide by provider.
const GUIDES: [(&str, &str); 3] = [("google", GOOGLE), ("microsoft", MICROSOFT), ("outlook", MICROSOFT)];

/// The heading in these pages above the steps, which are a numbered list.
const HEADING: &str = "## Where to click\n";

/// What to do at a provider to register a client.
pub struct RegistrationSteps {
    pub provider: String,
    pub steps: Vec<Vec<StepPart>>,
    /// The redirect URI to enter, if no step has it.
    pub redirect_uri: Option<String>,
}

/// A part of a step.
#[derive(Debug, PartialEq, Eq)]
pub enum StepPart {
    Text(String),
    Strong(String),
    /// Something to copy from here.
    Copy(String),
    /// The address of a page.
    Link(String),
}

impl RegistrationSteps {
    /// Takes the steps from the guide, or else the note of the provider's entry as the only step.
    pub fn of(provider: &Provider) -> Self {
        let redirect_uri = provider.redirect_uri.to_string();
        let guide = GUIDES.iter().find(|(name, _)| *name == provider.name);
        let steps = match guide {
            Some((_, page)) => steps(page),
            None => vec![vec![StepPart::Text(provider.note.clone().unwrap_or_else(general))]],
        };
        let same = |text: &str| text.trim_end_matches('/') == redirect_uri.trim_end_matches('/');
        let is_named = steps.iter().flatten().any(|part| matches!(part, StepPart::Copy(text) if same(text)));
        Self { provider: provider.name.clone(), steps, redirect_uri: (!is_named).then_some(redirect_uri) }
    }
}

/// The step for a provider of which nothing is known.
fn general() -> String {
    "Register a client of the kind \"desktop\" or \"native\", with the permissions that mail needs.".to_owned()
}

/// Reads the numbered list below the heading.
fn steps(page: &str) -> Vec<Vec<StepPart>> {
    let section = page.split_once(HEADING).map_or("", |(_, after)| after);
    let section = section.split_once("\n## ").map_or(section, |(section, _)| section);
    let mut steps: Vec<String> = Vec::new();
    for line in section.lines() {
        let numbered = line.split_once(". ").filter(|(number, _)| number.parse::<u8>().is_ok());
        match (numbered, steps.last_mut()) {
            (Some((_, text)), _) => steps.push(text.to_owned()),
            (None, Some(step)) => *step = format!("{step} {}", line.trim()),
            (None, None) => {}
        }
    }
    steps.iter().map(|step| parts(step.trim())).collect()
}

/// A pair of marks in Markdown, and what is between them.
type Mark = (&'static str, &'static str, fn(String) -> StepPart);

/// The marks that the steps use.
const MARKS: [Mark; 3] = [("`", "`", StepPart::Copy), ("**", "**", StepPart::Strong), ("<", ">", StepPart::Link)];

fn parts(text: &str) -> Vec<StepPart> {
    let marked = MARKS.iter().filter_map(|(begin, end, part)| {
        let (before, after) = text.split_once(begin)?;
        let (inner, rest) = after.split_once(end)?;
        Some((before, part(inner.to_owned()), rest))
    });
    match marked.min_by_key(|(before, ..)| before.len()) {
        None => vec![StepPart::Text(text.to_owned())],
        Some((before, part, rest)) => {
            [StepPart::Text(before.to_owned()), part].into_iter().chain(parts(rest)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_the_steps_and_what_to_copy() {
        for (name, copied) in [("google", "https://mail.google.com/"), ("microsoft", "http://localhost")] {
            let (_, page) = GUIDES.iter().find(|(one, _)| *one == name).unwrap();
            let steps = steps(page);
            assert!(steps.len() >= 5, "{name}: {steps:?}");
            assert!(
                matches!(&steps[0][1], StepPart::Link(url) if url.starts_with("https://")),
                "{name}: {:?}",
                steps[0]
            );
            assert!(steps.iter().flatten().any(|part| *part == StepPart::Copy(copied.to_owned())), "{name}: {steps:?}");
            let is_plain =
                |part: &StepPart| !matches!(part, StepPart::Text(text) if text.contains(['`', '*', '<', '#', '[']));
            assert!(steps.iter().flatten().all(is_plain), "{name}: {steps:?}");
        }
    }

    #[test]
    fn a_step_goes_on_in_the_next_line_and_ends_with_its_list() {
        let page = "# X\n\n1. no\n\n## Where to click\n\n1. At <https://x.test/>, **press**\n   \"A\".\n2. Copy `a. b`.\n\n## Then\n\n1. no\n";
        let text = |text: &str| StepPart::Text(text.to_owned());
        let first = vec![
            text("At "),
            StepPart::Link("https://x.test/".to_owned()),
            text(", "),
            StepPart::Strong("press".to_owned()),
            text(" \"A\"."),
        ];
        assert_eq!(steps(page), [first, vec![text("Copy "), StepPart::Copy("a. b".to_owned()), text(".")]]);
    }
}
