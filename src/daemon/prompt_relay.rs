//! Relays questions to clients at a terminal, and their answers back.

use std::sync::{Mutex, MutexGuard};

use tokio::sync::{mpsc, oneshot, watch};

use crate::ssh::{Ask, Question, Secret};
use crate::sync::lock;

/// The open question, and the watchers that may answer it.
#[derive(Debug)]
pub(super) struct PromptRelay {
    /// The open question with its id, as sent to watchers.
    open: watch::Sender<Option<(u64, Question)>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    /// Number of clients that have a terminal, or have not said yet whether they have one.
    people: usize,
    /// The channel for the open question's answer.
    reply: Option<(u64, oneshot::Sender<Secret>)>,
}

impl PromptRelay {
    pub(super) fn new() -> Self {
        Self { open: watch::Sender::new(None), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Asks the questions one after another, until all senders are dropped.
    pub(super) async fn run(&self, mut questions: mpsc::Receiver<Ask>) {
        let mut open = self.open.subscribe();
        while let Some(Ask { question, mut reply }) = questions.recv().await {
            let (answer, answered) = oneshot::channel();
            {
                let mut state = self.state();
                if state.people == 0 {
                    continue; // dropping `reply` means that no person can be asked
                }
                state.next_id += 1;
                state.reply = Some((state.next_id, answer));
                self.open.send_replace(Some((state.next_id, question)));
            }
            tokio::select! {
                Ok(secret) = answered => drop(reply.send(secret)),
                () = reply.closed() => {}
                // Withdrawn, declined, or no watcher left.
                _ = open.wait_for(Option::is_none) => {}
            }
            self.withdraw();
        }
    }

    fn withdraw(&self) {
        self.state().reply = None;
        self.open.send_replace(None);
    }

    /// The open question and its changes.
    pub(super) fn watch(&self) -> watch::Receiver<Option<(u64, Question)>> {
        self.open.subscribe()
    }

    /// Counts a client that has a terminal, or may have one, for as long as the returned value lives.
    pub(super) fn person(&self) -> Person<'_> {
        self.state().people += 1;
        Person(self)
    }

    /// An answer, or the refusal to answer. Answers to other questions than the open one are dropped.
    pub(super) fn answer(&self, id: u64, answer: Option<Secret>) {
        let mut state = self.state();
        if state.reply.as_ref().is_some_and(|(open, _)| *open == id)
            && let Some((_, reply)) = state.reply.take()
        {
            drop(state);
            match answer {
                Some(answer) => drop(reply.send(answer)),
                None => self.withdraw(),
            }
        }
    }
}

/// A client that has a terminal, or may have one.
pub(super) struct Person<'a>(&'a PromptRelay);

impl Drop for Person<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.people -= 1;
        if state.people == 0 {
            drop(state);
            self.0.withdraw();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::Prompter;

    fn question() -> Question {
        Question::Password { account: "u@h".into(), again: false, notes: Vec::new() }
    }

    #[tokio::test]
    async fn a_question_reaches_a_person_and_the_answer_comes_back() {
        let prompts = PromptRelay::new();
        let (prompter, questions) = Prompter::new();
        let _person = prompts.person();
        let mut open = prompts.watch();
        let person = async {
            let (id, _) = open.wait_for(Option::is_some).await.expect("open").clone().expect("some");
            prompts.answer(id + 7, Some(Secret::new("another's".into())));
            prompts.answer(id, Some(Secret::new("mine".into())));
        };
        tokio::select! {
            () = prompts.run(questions) => panic!("ended"),
            (answer, ()) = async { tokio::join!(prompter.ask(question()), person) } => {
                assert_eq!(answer.expect("answered").reveal(), "mine");
            }
        }
    }

    #[tokio::test]
    async fn without_a_person_there_is_no_answer_and_no_wait() {
        let prompts = PromptRelay::new();
        let (prompter, questions) = Prompter::new();
        tokio::select! {
            () = prompts.run(questions) => panic!("ended"),
            answer = prompter.ask(question()) => assert!(answer.is_none()),
        }
    }

    #[tokio::test]
    async fn a_person_who_leaves_or_refuses_is_no_answer() {
        for refuse in [true, false] {
            let prompts = PromptRelay::new();
            let (prompter, questions) = Prompter::new();
            let person = prompts.person();
            let mut open = prompts.watch();
            let leaves = async {
                let (id, _) = open.wait_for(Option::is_some).await.expect("open").clone().expect("some");
                if refuse {
                    prompts.answer(id, None);
                }
                drop(person);
            };
            tokio::select! {
                () = prompts.run(questions) => panic!("ended"),
                (answer, ()) = async { tokio::join!(prompter.ask(question()), leaves) } => assert!(answer.is_none()),
            }
        }
    }
}
