//! `dtunnel secret`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::global::{Global, WayArgs};
use super::prompt;
use super::ui::ui;
use crate::config::{Leg, Target};
use crate::failure::{ExitCode, Failure};
use crate::ssh::keyring::{self, Kept, KeyringError};
use crate::ssh::{Bound, Question, keep_password, known_identities, needs_passphrase, opens};

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Ask for a secret of a target and keep it in the system keyring
    Set(SetArgs),
    /// List what is kept for a target (never the secrets themselves)
    List {
        /// The target
        #[arg(add = super::completions::targets())]
        target: String,
        /// Print a JSON array, for programs: the kind of each secret
        #[arg(long)]
        json: bool,
    },
    /// Forget all that is kept for a target
    Forget {
        /// The target
        #[arg(add = super::completions::targets())]
        target: String,
    },
}

impl SecretCommand {
    pub(super) fn json(&self) -> bool {
        matches!(self, Self::List { json: true, .. })
    }
}

#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The target
    #[arg(add = super::completions::targets())]
    target: String,
    /// Keep the password of the account on the host [default: the passphrase of its first key that has one]
    #[arg(long)]
    password: bool,
    /// Keep the passphrase of this private key
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    passphrase: Option<PathBuf>,
    /// Read it from the first line of standard input, as password managers print it
    #[arg(long)]
    stdin: bool,
}

pub(super) fn secret(global: &Global, command: &SecretCommand) -> Result<(), Failure> {
    match command {
        SecretCommand::Set(args) => set(global, args),
        SecretCommand::List { target, .. } => {
            let mut found = Vec::new();
            for kept in all_of(&resolved(global, target)?)? {
                if keyring::fetch(&kept).map_err(unusable)?.is_some() {
                    found.push(kept.to_string());
                }
            }
            ui().result(&found, || {
                if found.is_empty() {
                    ui().note(&format!("nothing is kept for {target}"));
                }
                found.iter().map(|kept| format!("{kept}\n")).collect()
            })
        }
        SecretCommand::Forget { target } => {
            for kept in all_of(&resolved(global, target)?)? {
                if keyring::forget(&kept).map_err(unusable)? {
                    ui().note(&format!("forgot the {kept}"));
                }
            }
            Ok(())
        }
    }
}

fn set(global: &Global, args: &SetArgs) -> Result<(), Failure> {
    let target = resolved(global, &args.target)?;
    let file = match &args.passphrase {
        Some(file) => Some(super::global::absolute(file)),
        None if args.password => None,
        None => target.ssh.identity_files.iter().find(|file| needs_passphrase(file)).cloned(),
    };
    let (kept, question) = match file {
        Some(file) if !needs_passphrase(&file) => {
            return Err(Failure::new(ExitCode::Usage, format!("{} is no key with a passphrase", file.display())));
        }
        Some(file) => {
            let question = Question::Passphrase { file: file.display().to_string(), again: false };
            (Kept::Passphrase(file), question)
        }
        None => (
            Kept::password_for(&target, &Leg::default())?,
            Question::Password { account: target.account(), again: false, notes: Vec::new() },
        ),
    };
    let answer = if args.stdin {
        prompt::first_line(std::io::stdin())
            .map_err(|e| Failure::new(ExitCode::Usage, format!("standard input has no {kept}: {e}")))?
    } else {
        prompt::ask(&question, None).map_err(|_| {
            Failure::new(ExitCode::Other, format!("there is no terminal to ask for the {kept}"))
                .hint("`--stdin` reads it from a password manager's output")
        })?
    };
    if let Kept::Passphrase(file) = &kept
        && !opens(file, &answer)
    {
        return Err(Failure::new(ExitCode::Auth, format!("this is not the {kept}; nothing was kept")));
    }
    if matches!(kept, Kept::Passphrase(_)) {
        keyring::keep(&kept, &answer).map_err(unusable)?;
        ui().note(&format!("kept the {kept} in the system keyring"));
        return Ok(());
    }
    let hosts = known_identities(&target);
    let named = hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
    keep_password(&kept, &Bound::new(answer, hosts)).map_err(unusable)?;
    ui().note(&match named.as_str() {
        "" => format!(
            "kept the {kept} in the system keyring, for no host key yet, since none is known: it is used once you have given it \
             at a login (dtunnel up {}), or stored it again with the key in known_hosts",
            target.typed()
        ),
        named => format!("kept the {kept} in the system keyring, for the host with the key {named}"),
    });
    Ok(())
}

fn resolved(global: &Global, target: &str) -> Result<Target, Failure> {
    global.resolved(target, &global.config()?, &WayArgs::default())
}

/// Every secret that may be stored for a target.
fn all_of(target: &Target) -> Result<Vec<Kept>, Failure> {
    let files = target.ssh.identity_files.iter().cloned().map(Kept::Passphrase);
    let passwords = [Kept::password_for(target, &Leg::default())?, Kept::OldPassword(target.account())];
    Ok(files.chain(passwords).collect())
}

fn unusable(error: KeyringError) -> Failure {
    Failure::new(ExitCode::Other, error.to_string()).hint(
        "is it unlocked, and is DBUS_SESSION_BUS_ADDRESS that of your session? nothing needs it: you are asked instead",
    )
}
