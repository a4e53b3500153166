//! A command line's words, as far as they tell something before all of it is read.

use std::ffi::OsString;

/// The place of the command among the words of a command line, as far as that can be told without reading it all.
pub(super) fn command_at(words: &[OsString]) -> Option<usize> {
    next_word(words, 1).filter(|at| words[*at] != "--")
}

/// The next word from `at` on that is neither an option nor the value of one; `--` is one.
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
