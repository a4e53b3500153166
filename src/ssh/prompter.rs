//! Questions to the user, and the time spent waiting for answers.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::time::Duration;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use zeroize::Zeroizing;

/// A question that only the user can answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Question {
    /// Confirm the host's key. The answer is `yes`, `no` or the fingerprint itself.
    HostKey {
        /// The host's name in known_hosts.
        host: String,
        /// `ED25519`, `RSA` …
        key_type: String,
        /// `SHA256:…`
        fingerprint: String,
        /// Other names in known_hosts with the same key, as `name (file:line)`.
        also_known_as: Vec<String>,
    },
    /// Update known_hosts with the keys that the host announced (UpdateHostKeys `ask`). The answer is `yes` or `no`.
    UpdatedHostKeys {
        /// The host's name in known_hosts.
        host: String,
        /// Keys to be added, `ED25519 SHA256:…`.
        new: Vec<String>,
        old: Vec<String>,
    },
    /// The passphrase of a private key.
    Passphrase {
        file: String,
        /// Whether the previous answer was wrong.
        again: bool,
    },
    /// The account's password.
    Password {
        /// `user@host`.
        account: String,
        /// Whether the previous answer was wrong.
        again: bool,
        /// Why a password is needed: the keys that were refused or not used.
        #[serde(default)]
        notes: Vec<String>,
    },
    /// A prompt from the server (keyboard-interactive, RFC 4256), shown without control characters.
    Server {
        /// `user@host`.
        account: String,
        /// The instruction sent with it; may be empty.
        instruction: String,
        prompt: String,
        /// Whether the answer is shown while it is typed.
        echo: bool,
        /// As in [`Question::Password`].
        #[serde(default)]
        notes: Vec<String>,
    },
}

/// An answer, hidden from Debug and overwritten in memory on drop. It is serialised only for the user's
/// own control socket, in hexadecimal: for text with a quote or a backslash the JSON reader would make
/// copies that are never overwritten.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes ownership of the text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The plain text of the secret.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Hex(self.0.as_bytes()))
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Secret;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in hexadecimal")
            }

            fn visit_str<E: de::Error>(self, digits: &str) -> Result<Secret, E> {
                let wrong = || E::custom("no text in hexadecimal");
                if !digits.is_ascii() || !digits.len().is_multiple_of(2) {
                    return Err(wrong());
                }
                let mut bytes = Zeroizing::new(Vec::with_capacity(digits.len() / 2));
                for at in (0..digits.len()).step_by(2) {
                    bytes.push(u8::from_str_radix(&digits[at..at + 2], 16).map_err(|_| wrong())?);
                }
                let text = str::from_utf8(&bytes).map_err(|_| wrong())?;
                Ok(Secret::new(text.into()))
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A question to the user; dropping it reports that nobody could be asked.
#[derive(Debug)]
pub struct Ask {
    pub question: Question,
    pub reply: oneshot::Sender<Secret>,
}

/// Asks the user, and measures how long that takes.
#[derive(Debug, Clone)]
pub struct Prompter {
    /// Whether an agent may ask the user its own questions.
    disturbs: bool,
    questions: mpsc::Sender<Ask>,
    /// Suspended while the user answers, and while an attending user visits a login page.
    clock: watch::Sender<Clock>,
    /// Suspended only while the user answers.
    clock_of_answers: watch::Sender<Clock>,
    /// Number of users who see the messages.
    people: watch::Sender<usize>,
    said: watch::Sender<Said>,
}

/// Limit of stored message lines.
const MOST_SAID: usize = 20;

/// The last messages to the user from programs on the route, such as the address of a login page.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Number of lines dropped before the stored ones.
    dropped: usize,
    lines: VecDeque<String>,
}

impl Said {
    /// The lines from number `seen` on; sets `seen` to the number of the next line.
    pub fn since(&self, seen: &mut usize) -> Vec<String> {
        let lines = self.lines.iter().skip(seen.saturating_sub(self.dropped)).cloned().collect();
        *seen = self.dropped + self.lines.len();
        lines
    }
}

/// Time spent waiting for users.
#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    open: usize,
    /// When the first open question began, if any is open.
    since: Option<Instant>,
    /// Time spent on earlier questions.
    spent: Duration,
}

/// The receiver of a [`Prompter`]'s questions.
pub type Questions = mpsc::Receiver<Ask>;

impl Prompter {
    /// A prompter, and the receiver of its questions.
    pub fn new() -> (Self, Questions) {
        // One question at a time is usual; those of a hop and the next may overlap.
        let (questions, receiver) = mpsc::channel(4);
        (
            Self {
                disturbs: true,
                questions,
                clock: watch::Sender::new(Clock::default()),
                clock_of_answers: watch::Sender::new(Clock::default()),
                people: watch::Sender::new(0),
                said: watch::Sender::new(Said::default()),
            },
            receiver,
        )
    }

    /// A prompter for background work: nobody can be asked, and agents that ask their owner are not used.
    pub fn for_nobody() -> Self {
        Self { disturbs: false, ..Self::new().0 }
    }

    /// Whether an agent may ask the user its own questions.
    pub(super) fn disturbs(&self) -> bool {
        self.disturbs
    }

    /// A copy that asks nobody; messages are still passed on.
    pub(super) fn without_people(&self) -> Self {
        Self { questions: mpsc::channel(1).0, people: watch::Sender::new(0), ..self.clone() }
    }

    /// Counts a user who sees the messages, for as long as the returned value lives.
    pub fn attended(&self) -> Attended {
        self.people.send_modify(|people| *people += 1);
        Attended(self.people.clone())
    }

    /// Passes on a program's message, as one line safe for a terminal.
    pub fn tell(&self, line: String) {
        self.said.send_modify(|said| {
            said.lines.push_back(line);
            if said.lines.len() > MOST_SAID {
                said.lines.pop_front();
                said.dropped += 1;
            }
        });
    }

    /// Passes on a message that every connection repeats, such as a server's banner. Dropped if
    /// it is among the stored lines.
    pub(super) fn tell_once(&self, line: String) {
        if !self.said.borrow().lines.contains(&line) {
            self.tell(line);
        }
    }

    /// The stored messages of programs, and updates for further ones.
    pub fn said(&self) -> watch::Receiver<Said> {
        self.said.subscribe()
    }

    /// Asks, and waits for the answer. None if nobody can be asked or the question is declined.
    pub async fn ask(&self, question: Question) -> Option<Secret> {
        let _open = OpenQuestion::new(&[&self.clock, &self.clock_of_answers]);
        let (reply, answer) = oneshot::channel();
        self.questions.send(Ask { question, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Suspends time limits while the user acts elsewhere: as long as the returned value lives, for at most `limit`.
    pub(super) fn hold(&self, limit: Duration) -> Hold {
        let open = OpenQuestion::new(&[&self.clock, &self.clock_of_answers]);
        Hold(AbortOnDropHandle::new(tokio::spawn(async move {
            tokio::time::sleep(limit).await;
            drop(open);
        })))
    }

    /// As [`Self::hold`], while a user who sees the messages may visit an address in them. Without such a user no time
    /// limit is suspended, nor are the limits of callers that cannot visit it: a server could send any address.
    pub(super) fn hold_for_visit(&self, limit: Duration) -> Hold {
        let (clock, mut people) = (self.clock.clone(), self.people.subscribe());
        let visiting = async move {
            while people.wait_for(|people| *people > 0).await.is_ok() {
                let _open = OpenQuestion::new(&[&clock]);
                if people.wait_for(|people| *people == 0).await.is_err() {
                    return;
                }
            }
        };
        Hold(AbortOnDropHandle::new(tokio::spawn(async move {
            let _ = tokio::time::timeout(limit, visiting).await;
        })))
    }

    /// Runs `work` for at most `limit`, not counting the time that users take to answer or to visit an address.
    /// None if the limit is exceeded.
    pub async fn within<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        within(&self.clock, limit, work).await
    }

    /// As [`Self::within`] for a caller that cannot be asked: others' visits to an address do not extend this limit.
    pub async fn within_unattended<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        within(&self.clock_of_answers, limit, work).await
    }
}

async fn within<T>(clock: &watch::Sender<Clock>, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    let start = Instant::now();
    // Time spent on questions before this call does not extend the limit.
    let already = clock.borrow().spent + clock.borrow().since.map_or(Duration::ZERO, |since| since.elapsed());
    let mut clock = clock.subscribe();
    loop {
        let now = *clock.borrow_and_update();
        let deadline = start + limit + now.spent.saturating_sub(already);
        tokio::select! {
            biased;
            result = &mut work => return Some(result),
            _ = clock.changed() => {}
            () = tokio::time::sleep_until(deadline), if now.open == 0 => return None,
        }
    }
}

/// Counts a user who sees the messages, until dropped; see [`Prompter::attended`].
#[derive(Debug)]
pub struct Attended(watch::Sender<usize>);

impl Drop for Attended {
    fn drop(&mut self) {
        self.0.send_modify(|people| *people -= 1);
    }
}

/// Suspends time limits while a question is open, until dropped (cancellation included).
struct OpenQuestion(Vec<watch::Sender<Clock>>);

/// Suspends time limits until dropped; see [`Prompter::hold`].
pub(super) struct Hold(#[allow(dead_code, reason = "dropping it is its use")] AbortOnDropHandle<()>);

impl OpenQuestion {
    fn new(clocks: &[&watch::Sender<Clock>]) -> Self {
        for clock in clocks {
            clock.send_modify(|clock| {
                clock.open += 1;
                clock.since.get_or_insert_with(Instant::now);
            });
        }
        Self(clocks.iter().copied().cloned().collect())
    }
}

impl Drop for OpenQuestion {
    fn drop(&mut self) {
        for clock in &self.0 {
            clock.send_modify(|clock| {
                clock.open -= 1;
                if clock.open == 0
                    && let Some(since) = clock.since.take()
                {
                    clock.spent += since.elapsed();
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question() -> Question {
        Question::Passphrase { file: "k".into(), again: false }
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_person_does_not_use_up_the_time_limit() {
        let (prompter, mut questions) = Prompter::new();
        let person = async {
            let ask = questions.recv().await.expect("a question");
            tokio::time::sleep(Duration::from_secs(60)).await;
            ask.reply.send(Secret::new("x".into())).expect("waited for");
        };
        let work = prompter.within(Duration::from_secs(2), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let answer = prompter.ask(question()).await.expect("an answer");
            answer.reveal().to_owned()
        });
        assert_eq!(tokio::join!(work, person).0.as_deref(), Some("x"));
        let slow = prompter.within(Duration::from_secs(2), tokio::time::sleep(Duration::from_secs(3)));
        assert_eq!(slow.await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_held_goes_on_when_it_is_let_go_or_after_its_limit() {
        let (prompter, _questions) = Prompter::new();
        let sleep = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let begun = Instant::now();
        let held = prompter.within(Duration::from_secs(2), async {
            let hold = prompter.hold(Duration::from_secs(120));
            sleep(100).await;
            drop(hold);
            sleep(1).await;
        });
        assert_eq!(held.await, Some(()));
        let forgotten = prompter.within(Duration::from_secs(2), async {
            let _hold = prompter.hold(Duration::from_secs(120));
            sleep(1000).await;
        });
        assert_eq!(forgotten.await, None);
        assert_eq!(begun.elapsed().as_secs(), 101 + 122);
    }

    #[tokio::test(start_paused = true)]
    async fn only_a_person_who_is_there_gets_time_for_a_visit() {
        let (prompter, _questions) = Prompter::new();
        let limit = Duration::from_secs(2);
        let sleep = |seconds| tokio::time::sleep(Duration::from_secs(seconds));
        let _hold = prompter.hold_for_visit(Duration::from_secs(300));
        assert_eq!(prompter.within(limit, sleep(3)).await, None, "nobody is there");
        let person = prompter.attended();
        assert_eq!(prompter.within(limit, sleep(3)).await, Some(()));
        assert_eq!(prompter.within_unattended(limit, sleep(3)).await, None, "the person is somebody else");
        let begun = Instant::now();
        let leaving = async {
            sleep(100).await;
            drop(person);
        };
        assert_eq!(tokio::join!(prompter.within(limit, sleep(200)), leaving).0, None);
        assert_eq!(begun.elapsed().as_secs(), 102, "the clock goes on once the person has left");
        let _person = prompter.attended();
        assert_eq!(prompter.within(limit, sleep(1000)).await, None, "not for ever");
    }

    #[tokio::test]
    async fn nobody_there_to_answer_is_no_answer() {
        let (prompter, questions) = Prompter::new();
        drop(questions);
        assert!(prompter.ask(question()).await.is_none());
    }

    #[test]
    fn a_secret_passes_the_control_socket_unchanged_and_unread() {
        for text in ["", "hunter2", "\"quoted\" \\ and \t\u{e4}\u{20ac}\u{0}"] {
            let written = serde_json::to_string(&Secret::new(text.into())).expect("written");
            assert!(written.trim_matches('"').bytes().all(|c| c.is_ascii_hexdigit()), "{written}");
            let read: Secret = serde_json::from_str(&written).expect("read");
            assert_eq!(read.reveal(), text);
        }
        for wrong in ["\"a\"", "\"zz\"", "\"ff\"", "\"\u{e4}\u{e4}\"", "1"] {
            assert!(serde_json::from_str::<Secret>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".into())), "[secret]");
    }
}
