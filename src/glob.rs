//! Patterns with `*` for any bytes and `?` for any one, as ssh_config and known_hosts have them (ssh_config(5),
//! "PATTERNS"). The one matcher of this program: the text is often chosen by the other side, so matching takes at most
//! the pattern's length times the text's.

/// Does the whole of `text` fit `pattern`?
///
/// Upper and lower case differ; callers fold them where they mean the same.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    // The last `*`, and where what it stands for ends. Earlier ones need no backtracking: the later `*` can match
    // everything that they could give up.
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((after, taken)) = star else { return false };
                star = Some((after, taken + 1));
                (at, from) = (after + 1, taken + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition itself, which takes exponential time.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => (0..=text.len()).any(|skipped| by_definition(rest, &text[skipped..])),
            (Some((b'?', pattern)), Some((_, text))) => by_definition(pattern, text),
            (Some((a, pattern)), Some((b, text))) => a == b && by_definition(pattern, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn it_is_the_definition(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }

    #[test]
    fn many_stars_end() {
        // By trying everything this would take longer than the universe has been there.
        assert!(!matches(&"*a".repeat(100), &("a".repeat(10_000) + "b")));
        assert!(matches(&"*a".repeat(100), &"a".repeat(10_000)));
    }
}
