//! `ps_args` of `top`: the arguments that the Engine passes to the host's ps(1), as root.
//!
//! With a BSD-style `e`, procps shows the environment of every process. If it does not understand its options in
//! the Unix style, it even reads all of them again in the BSD style (`-auxe` shows environments, and so may `-ef`
//! next to a contradicting option). So allowed options and fields are listed here, only lists of fields are
//! allowed as arguments, and no `e` is ever sent: the Unix style's `-e` is sent as `-A`, which means the same
//! there and nothing in the other style.

/// One-letter options without an argument, in either style: which processes, their fields, and their order. (`u` takes
/// users in the Unix style, but none follow here.)
const LETTERS: &str = "acdfhjlrsuvwxyAFHS";
/// Fields of a process, from ps(1).
const FIELDS: &[&str] = &[
    "%cpu",
    "%mem",
    "args",
    "bsdstart",
    "bsdtime",
    "c",
    "cmd",
    "comm",
    "command",
    "cputime",
    "egid",
    "egroup",
    "etime",
    "etimes",
    "euid",
    "euser",
    "gid",
    "group",
    "lstart",
    "ni",
    "nice",
    "nlwp",
    "pcpu",
    "pgid",
    "pgrp",
    "pid",
    "pmem",
    "ppid",
    "pri",
    "psr",
    "rgid",
    "rgroup",
    "rss",
    "rssize",
    "rsz",
    "ruid",
    "ruser",
    "s",
    "sess",
    "sid",
    "size",
    "start",
    "start_time",
    "stat",
    "state",
    "stime",
    "sz",
    "tgid",
    "thcount",
    "time",
    "tname",
    "tt",
    "tty",
    "ucmd",
    "ucomm",
    "uid",
    "uname",
    "user",
    "vsize",
    "vsz",
    "wchan",
];

/// The arguments to send in place of these.
///
/// # Errors
/// The word that is not known to be harmless.
pub(super) fn harmless(args: &str) -> Result<String, String> {
    let mut sent = Vec::new();
    let mut words = args.split(' ').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let refused = || format!("`{}` in ps_args is not known to be harmless", word.escape_debug());
        if let Some(fields) = word.strip_prefix("--sort=") {
            let names = fields.split(',').map(|field| field.trim_start_matches(['+', '-']));
            if !names.into_iter().all(|name| FIELDS.contains(&name)) {
                return Err(refused());
            }
            sent.push(word.to_owned());
            continue;
        }
        if word == "--forest" {
            sent.push(word.to_owned());
            continue;
        }
        let unix = word.strip_prefix('-');
        let (letters, fields) = match unix.unwrap_or(word).split_once('o') {
            None => (unix.unwrap_or(word), None),
            Some((letters, "")) => (letters, Some(words.next().ok_or_else(refused)?)),
            Some((letters, fields)) => (letters, Some(fields)),
        };
        // `-auxe` is meant in the BSD style, despite its dash.
        let mixed = letters.contains('e') && letters.contains(['a', 'u', 'x']);
        let letters = if unix.is_some() && !mixed { letters.replace('e', "A") } else { letters.to_owned() };
        let known = letters.chars().all(|letter| LETTERS.contains(letter));
        let fields_known = fields.is_none_or(|fields| fields.split(',').all(|field| FIELDS.contains(&field)));
        if !known || !fields_known || (letters.is_empty() && fields.is_none()) {
            return Err(refused());
        }
        let dash = if unix.is_some() { "-" } else { "" };
        match fields {
            None => sent.push(format!("{dash}{letters}")),
            Some(fields) => sent.push(format!("{dash}{letters}o {fields}")),
        }
    }
    Ok(sent.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_harmless_arguments_of_ps_pass_and_no_e_among_them() {
        for (args, sent) in [
            ("", ""),
            ("aux", "aux"),
            ("-aux", "-aux"),
            ("-ef", "-Af"),
            ("  -e   -f ", "-A -f"),
            ("-eo pid,comm", "-Ao pid,comm"),
            ("-e -o pid,ppid,etime,cmd", "-A -o pid,ppid,etime,cmd"),
            ("-opid,args", "-o pid,args"),
            ("axo pid,user,%cpu", "axo pid,user,%cpu"),
            ("o pid", "o pid"),
            ("auxwwf --sort=-%mem,+pid", "auxwwf --sort=-%mem,+pid"),
            ("-A --forest", "-A --forest"),
        ] {
            assert_eq!(harmless(args).as_deref(), Ok(sent), "{args}");
        }
        for args in [
            "axeww",
            "e",
            "auxe",
            "axE",
            "-",
            "--",
            "o",
            "-eo",
            "-o pid,environ",
            "-o environ",
            "-o pid=PID",
            "-o",
            "-o \u{130}",
            "-p 1",
            "-p1",
            "p 1",
            "1",
            "-u root",
            "-C x",
            "-q 1",
            "--info",
            "--pid=1",
            "--sort=environ",
            "--sort",
            "--cols 9",
            "-L",
            "k pid",
            "-N",
            "--format=environ",
            "ax\te",
            "ax\ne",
            "-o pid -e\u{a0}x",
            "L",
            "-O environ",
            "X",
            "T e",
            "-fe e",
        ] {
            assert!(harmless(args).is_err(), "{args}");
        }
    }
}
