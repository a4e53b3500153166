//! Looks into a command line's words before it is parsed.

use std::ffi::OsString;

/// The index of the command among the words, found without parsing the options.
pub(super) fn command_at(words: &[OsString]) -> Option<usize> {
    next_word(words, 1).filter(|at| words[*at] != "--")
}

/// The index of the next word from `at` on that is neither an option nor the value of one; `--` counts as a word.
pub(super) fn next_word(words: &[OsString], mut at: usize) -> Option<usize> {
    loop {
        let word = words.get(at)?.to_string_lossy();
        match &*word {
            "--config" | "-F" | "--color" | "--timeout" => at += 2,
            word if word.starts_with('-') && word != "--" => at += 1,
            _ => return Some(at),
        }
    }
}
