//! `ferry send URL --message JSON`: one message, and what became of it.

use std::path::PathBuf;
use std::time::Duration;

use anstream::{eprintln, println};
use anyhow::{Context as _, bail};
use ferry_text::Foreign;
use reqwest::{StatusCode, Url, header};
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout_at};

use crate::client::{Base, Bearer};
use crate::exit::Usage;

/// Between two attempts at a web-app that is not there, or has no room.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest that a single request waits; a web-app lets one wait for 5 min.
const WAIT_MAX: Duration = Duration::from_secs(240);

/// A message on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Single {
    /// Send this JSON object and no input, wait until the far side has it, and print the answer.
    #[arg(long, value_name = "JSON")]
    pub(super) message: Option<String>,
    /// How long to wait until the far side has the message, such as 500ms or 2m.
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "message", value_parser = super::super::duration)]
    wait: Duration,
    /// The Idempotency-Key of the message, or a name for the input: what is sent again under it is the same messages
    /// [default: one of its own].
    #[arg(long, value_name = "KEY")]
    pub(super) key: Option<String>,
    /// The site that the messages are for, at a terminator that several use: a name of its GET /status.
    #[arg(long, value_name = "SITE", value_parser = one_site)]
    pub(super) to: Option<String>,
    /// A file with the token that the web-app asks for.
    #[arg(long, value_name = "FILE")]
    pub(super) token_file: Option<PathBuf>,
}

/// What `POST /trigger` answers.
#[derive(Deserialize)]
struct Answer {
    id: Option<String>,
    delivered: Option<bool>,
    error: Option<String>,
}

/// What a request came to.
enum Attempt {
    /// The far side has it; the answer as it came.
    Delivered(String),
    /// It is stored under this id, and on its way.
    UnderWay(String),
    /// Worth another attempt.
    Failed(anyhow::Error),
}

/// Sends the message until it is delivered, is known not to be, or the time is up. Under one key for all attempts, so
/// that it is one message, however many of them reach the web-app.
pub(super) async fn run(base: &Base, message: &str, args: &Single) -> anyhow::Result<()> {
    if !serde_json::from_str(message).is_ok_and(|value: serde_json::Value| value.is_object()) {
        return Err(Usage(format!("--message {message:?} is not a JSON object; write one such as {{\"n\": 1}}")).into());
    }
    let mut headers = header::HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    let key = args.key.clone().map_or_else(fresh_key, Ok)?;
    let text = |text: &str| header::HeaderValue::from_str(text).map_err(|_| Usage(format!("{text:?} fits no header")));
    headers.insert("idempotency-key", text(&key)?);
    if let Some(token) = Bearer::read(args.token_file.as_deref())? {
        headers.insert(header::AUTHORIZATION, token.value());
    }
    let http = reqwest::Client::builder().default_headers(headers).build()?;
    let deadline = Instant::now() + args.wait;
    let mut last = anyhow::anyhow!("no attempt came to an end");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let url = trigger_url(base, left.min(WAIT_MAX), args.to.as_deref())?;
        match timeout_at(deadline + RETRY_DELAY, attempt(&http, base, url, message)).await {
            Ok(attempt) => match attempt? {
                Attempt::Delivered(answer) => {
                    println!("{answer}");
                    return Ok(());
                }
                Attempt::UnderWay(id) => last = anyhow::anyhow!("message {id} is accepted and still on its way"),
                Attempt::Failed(error) => last = error,
            },
            Err(_) => last = last.context(format!("{base} does not answer")),
        }
        if Instant::now() + RETRY_DELAY >= deadline {
            bail!("not delivered within {}: {last:#}", ferry_units::render_duration(args.wait));
        }
        eprintln!("{last:#}; trying again");
        sleep(RETRY_DELAY).await;
    }
}

fn trigger_url(base: &Base, wait: Duration, to: Option<&str>) -> anyhow::Result<Url> {
    let mut url = base.join("trigger")?;
    let wait = format!("{}ms", wait.as_millis());
    url.query_pairs_mut().append_pair("wait", &wait).extend_pairs(to.map(|site| ("to", site)));
    Ok(url)
}

/// A message for several sites has an answer for each, which is more than an exit code can tell.
fn one_site(text: &str) -> Result<String, &'static str> {
    if text.is_empty() || text.contains([',', '*']) {
        return Err("it is the name of one site; POST /trigger?to= takes several");
    }
    Ok(text.to_owned())
}

/// One request. An error is an answer that no other attempt will change.
async fn attempt(http: &reqwest::Client, base: &Base, url: Url, message: &str) -> anyhow::Result<Attempt> {
    let response = match http.post(url).body(message.to_owned()).send().await {
        Ok(response) => response,
        Err(error) => {
            let cause = anyhow::Error::from(error);
            return Ok(Attempt::Failed(anyhow::anyhow!("cannot reach {base}: {}", cause.root_cause())));
        }
    };
    let (status, text) = (response.status(), response.text().await);
    let text = match text {
        Ok(text) => text,
        Err(error) => return Ok(Attempt::Failed(anyhow::anyhow!("the answer of {base} broke off: {error}"))),
    };
    judge(base, status, text)
}

/// What an answer means. What it quotes may be a far hook's.
fn judge(base: &Base, status: StatusCode, text: String) -> anyhow::Result<Attempt> {
    let Answer { id, delivered, error } = serde_json::from_str(&text)
        .with_context(|| format!("{base} answered {status} with something else than JSON; is it a ferry web-app?"))?;
    let id = id.unwrap_or_default();
    let error = error.as_deref().map(Foreign);
    match (status, delivered) {
        (_, Some(true)) => Ok(Attempt::Delivered(text)),
        (_, Some(false)) => {
            bail!("the far side's hook kept refusing message {id}: {}", error.unwrap_or(Foreign("")))
        }
        (StatusCode::ACCEPTED, None) => Ok(Attempt::UnderWay(id)),
        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS, None) => {
            Ok(Attempt::Failed(anyhow::anyhow!("{base} answered {status}: {}", error.unwrap_or(Foreign("")))))
        }
        _ => bail!("{base} answered {status}: {}", error.unwrap_or(Foreign(&text))),
    }
}

pub(super) fn fresh_key() -> anyhow::Result<String> {
    let number = getrandom::u64().context("the operating system gave no randomness for a key")?;
    Ok(format!("ferry-send-{number:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_far_side_says_is_one_line_that_drives_no_terminal() {
        let base = "http://127.0.0.1:8000".parse().unwrap();
        let said = format!(r#""error": "no\nerror: forged \u001b[2J{}"}}"#, "x".repeat(1000));
        for (status, rest) in [(424, r#"{"id": "a-1", "delivered": false, "#), (503, "{"), (400, "{")] {
            let status = StatusCode::from_u16(status).unwrap();
            let text = match judge(&base, status, format!("{rest}{said}")) {
                Err(error) | Ok(Attempt::Failed(error)) => error.to_string(),
                Ok(_) => panic!("{status}"),
            };
            assert!(text.contains("forged") && !text.contains(['\n', '\u{1b}']) && text.len() < 400, "{text:?}");
        }
    }
}
