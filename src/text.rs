//! Text from outside (an Engine, a server, a host's tools, names of containers), made fit for a terminal, a
//! log and a line of a report.
//!
//! Every such text passes through here. A terminal obeys control characters; a line break would let the other side
//! write lines of its own into our reports; and Unicode's format characters reorder or hide what people read (Unicode
//! Technical Report 36, section 2.5; CVE-2021-42574).

/// Longest text that is kept for people, in characters.
const MAX: usize = 1000;

/// One line of at most 1000 characters: blanks of any kind are one space each, controls and format characters are gone.
pub fn shown(text: &str) -> String {
    shown_at_most(text, MAX)
}

/// The same with at most `most` characters, the last one `…` where some are missing.
pub fn shown_at_most(text: &str, most: usize) -> String {
    let text = text.trim();
    if text.len() <= most && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.into();
    }
    let mut kept = String::new();
    for (count, c) in text.chars().filter_map(plain).enumerate() {
        if count == most {
            kept.pop();
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    kept
}

/// The same of bytes that are not always UTF-8.
pub fn shown_bytes(bytes: &[u8]) -> String {
    shown(&String::from_utf8_lossy(bytes))
}

/// The lines worth showing: each as by [`shown`], without empty ones, and at most the last
/// `most`, since the cause comes last.
pub fn last_lines(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = text.split(['\n', '\r']).map(shown).filter(|line| !line.is_empty()).collect();
    lines.split_off(lines.len().saturating_sub(most))
}

/// Does a line contain a web address that a person may have to visit?
pub fn names_address(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.contains("https://") || line.contains("http://")
}

/// A character as it may be shown; None if it must not appear in a line.
fn plain(c: char) -> Option<char> {
    match c {
        '\t' | '\n' | '\r' | '\u{2028}' | '\u{2029}' => Some(' '),
        c if c.is_control() || is_format(c) => None,
        c => Some(c),
    }
}

/// Unicode's general category Cf (UnicodeData 16.0), in which all marks of direction are.
fn is_format(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
        | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_the_cursor_breaks_the_line_or_turns_the_text_round() {
        assert_eq!(shown("a\u{1b}[2J\r\n✔ all is\u{2028}well\u{85}"), "a[2J  ✔ all is well");
        assert_eq!(shown("user\u{202e}toor\u{2066}\u{200b}\u{feff}\u{e0041}"), "usertoor");
        assert_eq!(shown(" naïve 名前 🚢 e\u{301} "), "naïve 名前 🚢 e\u{301}");
        assert_eq!(shown_bytes(b"\xff\x07x"), "\u{fffd}x");
    }

    #[test]
    fn it_has_an_end() {
        assert_eq!(shown_at_most("abcdef", 6), "abcdef");
        assert_eq!(shown_at_most("abcdefg", 6), "abcde…");
        assert_eq!(shown(&"x".repeat(5000)).chars().count(), MAX);
        assert_eq!(last_lines("one\n\n\x1b[1mtwo\r\nthree\n", 2), ["[1mtwo", "three"]);
    }

    /// Rust's own tables hold every format character to be one that is not to be printed as it is.
    #[test]
    fn the_table_has_no_character_that_can_be_seen() {
        for c in ('\0'..=char::MAX).filter(|c| is_format(*c)) {
            assert_ne!(c.escape_debug().to_string(), c.to_string(), "{c:?}");
        }
    }
}
