//! The questions of a master: ssh runs this program with each (SSH_ASKPASS, ssh(1)), which passes it on to the daemon, and the
//! daemon to a person.
//!
//! An answer goes over a socket in a private directory, and from this program to ssh over a pipe: never over a command line
//! or the environment.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

use super::home::{ASKPASS, QUESTIONS};
use crate::os::mux::{self, BlockingStream, Listener, Stream};
use crate::os::process::keep_memory_private;
use crate::ssh::prompter::{Prompter, Question, Secret};
use crate::sync::lock;
use crate::text;

/// Longest question, in bytes.
const MAX_QUESTION: usize = 16 << 10;
/// What stands before an answer; without it nobody has answered.
const ANSWERED: u8 = b'+';

/// Answers a question of ssh's if this process was started for that, under the name [`ASKPASS`] with the question as its
/// argument: prints the answer, or ends with 1.
pub fn answer_as_askpass() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let program = arguments.next().filter(|program| Path::new(program).file_name() == Some(ASKPASS.as_ref()))?;
    keep_memory_private();
    let answered = ask(Path::new(&program), &arguments.next().unwrap_or_default());
    Some(if answered.unwrap_or(false) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask(program: &Path, question: &OsString) -> io::Result<bool> {
    let hint = std::env::var("SSH_ASKPASS_PROMPT").unwrap_or_default();
    let mut stream = BlockingStream::connect(program.with_file_name(QUESTIONS))?;
    stream.write_all(format!("{hint}\n{}\0", question.to_string_lossy()).as_bytes())?;
    let mut answer = Zeroizing::new(Vec::with_capacity(4096));
    stream.read_to_end(&mut answer)?;
    let Some((&ANSWERED, answer)) = answer.split_first() else { return Ok(false) };
    if hint == "confirm" {
        return Ok(answer == b"yes");
    }
    let mut stdout = io::stdout();
    stdout.write_all(answer)?;
    stdout.write_all(b"\n")?;
    stdout.flush()?;
    Ok(true)
}

/// Answers a master's questions, until dropped.
#[derive(Debug)]
pub(super) struct Answers {
    /// What was asked that nobody answered.
    unanswered: Arc<Mutex<Option<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Answers {
    /// Listens at `socket`. Questions are on behalf of `account`.
    pub(super) fn at(socket: &Path, account: String, prompter: Prompter) -> io::Result<Self> {
        let listener = Listener::bind(socket)?;
        let unanswered = Arc::new(Mutex::new(None));
        let noted = unanswered.clone();
        let task = tokio::spawn(async move {
            // Its questions go on for as long as ssh waits.
            let mut asked = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    client = listener.accept() => match client {
                        Ok((stream, _)) => {
                            asked.spawn(serve(stream, account.clone(), prompter.clone(), noted.clone()));
                        }
                        Err(_) => return,
                    },
                    Some(_) = asked.join_next() => {}
                }
            }
        });
        Ok(Self { unanswered, _task: AbortOnDropHandle::new(task) })
    }

    /// The last question that nobody answered.
    pub(super) fn unanswered(&self) -> Option<String> {
        lock(&self.unanswered).clone()
    }
}

async fn serve(mut stream: Stream, account: String, prompter: Prompter, unanswered: Arc<Mutex<Option<String>>>) {
    let is_own = mux::is_own(&stream).unwrap_or(false);
    if !is_own {
        return;
    }
    let Ok(question) = read_question(&mut stream).await else { return };
    let (hint, text) = question.split_once('\n').unwrap_or_default();
    if hint == "none" {
        // A notice, such as to touch a key: shown until ssh ends the program.
        prompter.tell(text::shown(text));
        return gone(&mut stream).await;
    }
    let (instruction, prompt) = text.trim_end().rsplit_once('\n').unwrap_or(("", text));
    let asked = Question::Server {
        account,
        instruction: instruction.lines().map(text::shown).collect::<Vec<_>>().join("\n"),
        prompt: text::shown(prompt) + " ",
        echo: hint == "confirm" || prompt.contains("(yes/no"),
        notes: Vec::new(),
    };
    let answer = tokio::select! {
        answer = prompter.ask(asked) => answer,
        // ssh has given up.
        () = gone(&mut stream) => return,
    };
    match answer {
        Some(answer) => drop(send(&mut stream, &answer).await),
        None => *lock(&unanswered) = Some(text::shown(prompt)),
    }
}

/// The hint and the question, to the zero byte at its end.
async fn read_question(stream: &mut Stream) -> io::Result<String> {
    let mut question = Vec::new();
    while !question.ends_with(&[0]) {
        if question.len() > MAX_QUESTION || stream.read_buf(&mut question).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    question.pop();
    Ok(String::from_utf8_lossy(&question).into_owned())
}

async fn gone(stream: &mut Stream) {
    while stream.read(&mut [0]).await.is_ok_and(|read| read > 0) {}
}

async fn send(stream: &mut Stream, answer: &Secret) -> io::Result<()> {
    stream.write_all(&[ANSWERED]).await?;
    stream.write_all(answer.reveal().as_bytes()).await?;
    stream.shutdown().await
}
