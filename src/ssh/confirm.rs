//! Yes-or-no questions.

use super::prompter::{Prompter, Question};

/// How often a question is asked if the answer is neither yes nor no.
const MAX_ANSWERS: usize = 3;

/// Asks until `read` finds a yes or no in the trimmed answer; too many other answers count as no.
/// None if there is no terminal.
pub(super) async fn confirm(
    prompter: &Prompter,
    question: &Question,
    read: impl Fn(&str) -> Option<bool>,
) -> Option<bool> {
    for _ in 0..MAX_ANSWERS {
        let answer = prompter.ask(question.clone()).await?;
        let confirmed = read(answer.reveal().trim());
        if confirmed.is_some() {
            return confirmed;
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::Secret;

    /// Returns the outcome and the number of answers read.
    async fn with_answers(answers: &[&str]) -> (Option<bool>, usize) {
        let (prompter, mut questions) = Prompter::new();
        let question = Question::UpdatedHostKeys { host: "h".into(), new: Vec::new(), old: Vec::new() };
        let read = |answer: &str| match answer {
            "yes" => Some(true),
            "no" => Some(false),
            _ => None,
        };
        let person = async {
            let mut taken = 0;
            for answer in answers {
                let Some(ask) = questions.recv().await else { break };
                ask.reply.send(Secret::new((*answer).into())).expect("waited for");
                taken += 1;
            }
            drop(questions);
            taken
        };
        let asking = async {
            let outcome = confirm(&prompter, &question, read).await;
            drop(prompter);
            outcome
        };
        tokio::join!(asking, person)
    }

    #[tokio::test]
    async fn only_a_plain_answer_ends_the_question_and_doubt_is_a_no() {
        assert_eq!(with_answers(&["yes\n"]).await, (Some(true), 1));
        assert_eq!(with_answers(&["", "no"]).await, (Some(false), 2));
        assert_eq!(with_answers(&["y", "perhaps", "yes"]).await, (Some(true), 3));
        assert_eq!(with_answers(&["y", "perhaps", "sure", "yes"]).await, (Some(false), 3));
        assert_eq!(with_answers(&[]).await, (None, 0), "nobody is there");
        assert_eq!(with_answers(&["y"]).await, (None, 1), "who was there has gone");
    }
}
