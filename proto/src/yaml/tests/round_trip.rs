//! YAML to the model and back is the identity, and no text makes the reader panic.

use proptest::prelude::*;
use proptest::sample::Index;

use super::files::FULL;
use super::read;
use super::resilience::RESILIENCE;
use crate::model::random;
use crate::yaml::print;

#[test]
fn the_full_files_come_back() {
    for file in [FULL, RESILIENCE] {
        let config = read(file).unwrap().config;
        let printed = print(&config);
        assert_eq!(read(&printed).unwrap_or_else(|e| panic!("{e}\n{printed}")).config, config);
        assert_eq!(print(&read(&printed).unwrap().config), printed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_reads_back(config in random::config()) {
        let printed = print(&config);
        match read(&printed) {
            Ok(parsed) => prop_assert_eq!(parsed.config, config, "{}", printed),
            Err(errors) => prop_assert!(false, "{}\n{}", errors, printed),
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in "[a-z0-9:\\-{}\\[\\],&*!|>'\"%@#?$~<. \t\n\\PC]{0,80}") {
        let _ = read(&text);
    }

    #[test]
    fn no_damage_makes_it_panic(policies: bool, cuts in proptest::collection::vec((any::<Index>(), 0..12_usize, "[\\PC\n]{0,3}"), 1..6)) {
        let mut text: Vec<char> = if policies { RESILIENCE } else { FULL }.chars().collect();
        for (at, gone, new) in cuts {
            let start = at.index(text.len());
            let end = (start + gone).min(text.len());
            text.splice(start..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = read(&text) {
            prop_assert!(!errors.errors.is_empty());
            prop_assert!(errors.errors.is_sorted_by_key(|error| error.place));
        }
    }
}
