//! keyboard-interactive (RFC 4256).

use russh::client::KeyboardInteractiveAuthResponse;

use super::{Attempt, Login};
use crate::ssh::error::Error;
use crate::ssh::prompter::Question;
use crate::text::shown as printable;

/// Limit of keyboard-interactive rounds in one attempt. RFC 4256 sets none.
const MAX_ROUNDS: usize = 16;

impl Login<'_> {
    pub(super) async fn keyboard_interactive(&mut self) -> Result<Attempt, Error> {
        let mut last = Attempt::Nothing;
        for _ in 0..self.target.ssh.password_prompts {
            let user = self.target.ssh.user.clone();
            let mut response = self.handle.authenticate_keyboard_interactive_start(user, None).await;
            let mut asked = false;
            for round in 0.. {
                match response {
                    Ok(KeyboardInteractiveAuthResponse::Success) => {
                        self.tried.accepted.push("keyboard-interactive".into());
                        return Ok(Attempt::Success);
                    }
                    Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                        self.still_open().await?;
                        if partial_success {
                            self.tried.accepted.push("keyboard-interactive".into());
                            return Ok(Attempt::Partial(remaining_methods));
                        }
                        last = Attempt::Failure(remaining_methods);
                        break;
                    }
                    Ok(KeyboardInteractiveAuthResponse::InfoRequest { instructions, prompts, .. }) => {
                        if round >= MAX_ROUNDS {
                            return Ok(last);
                        }
                        let mut answers = Vec::with_capacity(prompts.len());
                        for prompt in prompts {
                            asked = true;
                            let question = Question::Server {
                                account: self.account.clone(),
                                instruction: printable(&instructions),
                                prompt: printable(&prompt.prompt),
                                echo: prompt.echo,
                                notes: self.notes(round > 0 || !answers.is_empty()),
                            };
                            let Some(answer) = self.context.prompter.ask(question).await else {
                                self.need("answers to the server's questions".into());
                                return Ok(last);
                            };
                            answers.push(answer.reveal().to_owned());
                        }
                        response = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                    }
                    Err(_) => {
                        self.still_open().await?;
                        return Ok(last);
                    }
                }
            }
            if !asked {
                break;
            }
            self.tried.refused.push("keyboard-interactive".into());
        }
        Ok(last)
    }
}
