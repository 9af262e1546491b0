//! Names for runs that come without one: `gentle-otter-417`.
//!
//! A name is drawn from a seed that the caller gives. It must never be taken for an id: two seeds may
//! give one name.

/// A name for this seed: an adjective, an animal and three digits, at most 20 characters.
pub fn run_name(seed: u64) -> String {
    let bits = scattered(seed);
    let adjective = pick(&ADJECTIVES, bits);
    let animal = pick(&ANIMALS, bits >> 16);
    let number = 100 + (bits >> 32) % 900;
    format!("{adjective}-{animal}-{number}")
}

fn pick<'a, const N: usize>(words: &[&'a str; N], bits: u64) -> &'a str {
    let index = (bits & 0xffff) as usize % N;
    words.get(index).copied().unwrap_or_default()
}

/// SplitMix64's finaliser (Steele, Lea and Flood 2014), so that seeds side by side give names far
/// apart.
fn scattered(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

const ADJECTIVES: [&str; 72] = [
    "able", "amber", "balmy", "blithe", "bold", "brave", "bright", "brisk", "calm", "candid",
    "cheery", "clear", "clever", "cosy", "crisp", "dapper", "daring", "deft", "eager", "early",
    "earnest", "fair", "fond", "frank", "free", "fresh", "gentle", "glad", "golden", "good",
    "grand", "green", "happy", "hardy", "honest", "humble", "jolly", "keen", "kind", "light",
    "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild", "modest", "neat", "nimble",
    "noble", "patient", "placid", "polite", "proud", "quick", "quiet", "ready", "rosy", "serene",
    "silver", "snug", "solid", "spry", "steady", "sunny", "swift", "tidy", "tender", "warm",
    "wise", "witty",
];

const ANIMALS: [&str; 72] = [
    "alpaca", "badger", "bear", "beaver", "bee", "bison", "bunny", "camel", "carp", "cat", "crane",
    "cricket", "deer", "dingo", "dog", "dolphin", "donkey", "dove", "duck", "eagle", "egret",
    "elk", "ermine", "falcon", "fawn", "ferret", "finch", "fox", "gecko", "gibbon", "goat",
    "goose", "hare", "hawk", "heron", "horse", "ibex", "ibis", "jay", "kestrel", "kite", "koala",
    "lamb", "lark", "lemur", "llama", "lynx", "magpie", "marmot", "marten", "mole", "moose",
    "newt", "ocelot", "okapi", "otter", "owl", "panda", "pony", "puffin", "quail", "robin", "seal",
    "sparrow", "stork", "swan", "tapir", "tern", "tortoise", "vole", "wren", "yak",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_name_is_two_words_and_a_number() {
        for seed in 0..10_000 {
            let name = run_name(seed);
            let parts: Vec<&str> = name.split('-').collect();
            let [adjective, animal, number] = parts[..] else {
                panic!("{name}")
            };
            assert!(ADJECTIVES.contains(&adjective) && ANIMALS.contains(&animal));
            assert!(number.len() == 3 && number.parse::<u16>().is_ok());
            assert!(name.len() <= 20, "{name}");
            assert_eq!(crate::names::tag_value(&name), name);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_name_and_others_differ() {
        assert_eq!(run_name(7), run_name(7));
        let names: BTreeSet<String> = (0..10_000).map(run_name).collect();
        assert!(names.len() > 9_950, "{}", names.len());
    }

    #[test]
    fn no_word_is_there_twice() {
        assert_eq!(
            ADJECTIVES.iter().collect::<BTreeSet<_>>().len(),
            ADJECTIVES.len()
        );
        assert_eq!(ANIMALS.iter().collect::<BTreeSet<_>>().len(), ANIMALS.len());
    }
}
