//! A disk whose syncs fail under a web-app.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Port, Running, command, eventually, role};

/// A library that makes the syncs of the process fail that it is preloaded into.
fn library(dir: &Path) -> PathBuf {
    let (source, library) = (concat!(env!("CARGO_MANIFEST_DIR"), "/../app/tests/sync.c"), dir.join("sync.so"));
    // There is a compiler where ferry is built: its cryptography and its store need one.
    assert!(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap().success());
    library
}

/// A web-app on a disk that fails while a file exists.
struct OnDisk {
    args: Vec<String>,
    dir: PathBuf,
    running: Running,
    port: Port,
}

impl OnDisk {
    fn start(dir: &Path, args: Vec<String>, port: Port) -> Self {
        fs::create_dir_all(dir).unwrap();
        let (running, _) = role(&mut Self::command(dir, &args, &port));
        Self { args, dir: dir.to_owned(), running, port }
    }

    fn listen(&self) -> SocketAddr {
        self.port.address()
    }

    fn command(dir: &Path, args: &[String], port: &Port) -> Command {
        let mut command = command(args);
        command.args(["--listen", &port.address().to_string()]);
        command
            .env("FERRY_DATA", dir.join("data"))
            .env("LD_PRELOAD", library(dir))
            .env("SYNC_FAILS", dir.join("fails"));
        command.stderr(File::create(dir.join("stderr")).unwrap());
        command
    }

    fn fail(&self) {
        File::create(self.dir.join("fails")).unwrap();
    }

    /// The process ends by itself, and says why.
    fn ends(&mut self) {
        assert_eq!(self.running.end().code(), Some(1));
        let said = fs::read_to_string(self.dir.join("stderr")).unwrap();
        let last = said.lines().last().unwrap();
        assert!(last.contains("the store failed") && last.contains("the content of the disk is unknown"), "{said}");
    }

    /// Starts it again, its disk repaired.
    fn again(self) -> Self {
        fs::remove_file(self.dir.join("fails")).unwrap();
        let Self { args, dir, running, port } = self;
        drop(running);
        Self::start(&dir, args, port)
    }
}

/// Triggers, and returns the answer if there is one.
async fn trigger(listen: SocketAddr, n: u64) -> Option<(u16, Value)> {
    let request = reqwest::Client::new().post(format!("http://{listen}/trigger"));
    let request = request.header("content-type", "application/json").body(json!({"n": n}).to_string());
    let answer = request.send().await.ok()?;
    Some((answer.status().as_u16(), serde_json::from_str(&answer.text().await.ok()?).ok()?))
}

async fn output(listen: SocketAddr) -> Vec<u64> {
    let text = reqwest::get(format!("http://{listen}/output")).await.unwrap().text().await.unwrap();
    let page: Value = serde_json::from_str(&text).unwrap();
    page["results"].as_array().unwrap().iter().map(|result| result["payload"]["n"].as_u64().unwrap()).collect()
}

#[test]
fn a_failed_sync_ends_the_process_and_what_was_accepted_is_there_after_a_restart() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let args =
        |role: &str, more: &[&str]| [&[role], more].concat().iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let mut terminator = OnDisk::start(&dir.path().join("b"), args("terminator", &[]), Port::reserve());
    let peer = format!("ws://{}/ws", terminator.listen());
    let more = ["--auto-trigger", "0", "--peer", &peer];
    let mut initiator = OnDisk::start(&dir.path().join("a"), args("initiator", &more), Port::reserve());

    // The far disk: what arrives is not acknowledged.
    terminator.fail();
    for n in 1..=10 {
        assert_eq!(runtime.block_on(trigger(initiator.listen(), n)).unwrap().0, 202);
    }
    terminator.ends();

    // The near disk: what comes is not accepted. It may arrive all the same, because its client cannot know.
    initiator.fail();
    if let Some((status, body)) = runtime.block_on(trigger(initiator.listen(), 11)) {
        assert_eq!(status, 503, "{body}");
        assert!(body["error"].as_str().unwrap().contains("the store failed"), "{body}");
    }
    initiator.ends();

    let initiator = initiator.again();
    let terminator = terminator.again();
    assert_eq!(runtime.block_on(trigger(initiator.listen(), 12)).unwrap().0, 202);
    let mut arrived = eventually("all of them", || {
        let arrived = runtime.block_on(output(terminator.listen()));
        arrived.contains(&12).then_some(arrived)
    });
    arrived.retain(|n| *n != 11);
    assert_eq!(arrived, (1..=10).chain([12]).collect::<Vec<_>>());
}
