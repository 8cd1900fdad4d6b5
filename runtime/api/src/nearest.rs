/// The known word that a misspelt one was most likely meant to be; none if it looks like none of them.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likely = |one: &&str| word.len().abs_diff(one.len()) <= one.len() / 3;
    let rated = known.into_iter().filter(likely).map(|one| (distance(word, one), one));
    rated.filter(|(distance, one)| *distance <= one.len() / 3).min().map(|(_, one)| one)
}

/// How many bytes are to be put in, taken out or replaced (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (1..=other.len()).collect();
    for (line, byte) in one.bytes().enumerate() {
        let (mut diagonal, mut left) = (line, line + 1);
        for (cell, wanted) in row.iter_mut().zip(other.bytes()) {
            left = (diagonal + usize::from(byte != wanted)).min(*cell + 1).min(left + 1);
            diagonal = std::mem::replace(cell, left);
        }
    }
    row.last().copied().unwrap_or(one.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_is_the_fewest_changes() {
        for (one, other, changes) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abc", 0),
            ("kitten", "sitting", 3),
            ("flaw", "lawn", 2),
        ] {
            assert_eq!(distance(one, other), changes, "{one} {other}");
            assert_eq!(distance(other, one), changes, "{other} {one}");
        }
    }

    #[test]
    fn a_typo_is_recognised_and_another_word_is_not() {
        let known = ["listen", "metrics-listen", "log", "log-format"];
        for (word, meant) in [
            ("lisen", Some("listen")),
            ("metrics_listen", Some("metrics-listen")),
            ("logs", Some("log")),
            ("logformat", Some("log-format")),
            ("egress", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }
}
