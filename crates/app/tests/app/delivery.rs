//! Messages from one web-app to the other.

use std::sync::{Arc, Mutex};

use ferry_app::{PassThrough, Role, Webapp};
use serde_json::json;
use tracing_subscriber::fmt::MakeWriter;

use crate::pair::*;

/// Collects log lines as a user sees them, for the current thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn lines(&self) -> Vec<String> {
        String::from_utf8_lossy(&self.0.lock().unwrap()).lines().map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn the_auto_trigger_delivers_five_messages_in_order_and_logs_exactly_two_lines() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_writer(log.clone()).with_ansi(false).without_time().with_target(false);
    let _guard = tracing::subscriber::set_default(subscriber.with_level(false).finish());
    let terminator = terminator();
    let role = Role::Initiator { peer: format!("ws://{}/ws", terminator.local_addr()) };
    let initiator =
        Webapp::start(ferry_app::Config { auto_trigger: 5, ..config(role) }, Arc::new(PassThrough)).unwrap();

    let results = results(&terminator, 5).await;
    eventually("the second line", async || log.lines().iter().any(|l| l.contains("complete")).then_some(())).await;

    assert_eq!(numbers(&results), [1, 2, 3, 4, 5]);
    for result in &results {
        assert_eq!(result["payload"]["message"], "Hello from initiator-0");
        let trail = result["trail"].as_array().unwrap();
        assert_eq!(trail.len(), 2, "{result}");
        assert_eq!((&trail[0]["pod"], &trail[0]["cluster"]), (&json!("initiator-0"), &json!("cluster-a")));
        assert_eq!((&trail[1]["pod"], &trail[1]["cluster"]), (&json!("terminator-0"), &json!("cluster-b")));
        assert!(trail.iter().all(|hop| hop["at"].as_str().unwrap().len() == "2025-06-01T12:00:00.000Z".len()));
    }
    let lines: Vec<_> = log.lines().into_iter().filter(|line| line.contains("Auto-trigger")).collect();
    assert_eq!(
        lines.iter().map(|line| line.trim_start()).collect::<Vec<_>>(),
        ["🔁 Auto-trigger starting — sending 5 messages", "🔁 Auto-trigger complete — 5/5 messages sent."],
    );
    let id = results[0]["id"].as_str().unwrap();
    for said in ["message sent", "message received"] {
        let line = log.lines().into_iter().find(|line| line.contains(said) && line.contains(id)).unwrap();
        assert!(line.contains("cluster-a/initiator-0") && line.contains("cluster-b/terminator-0"), "{line}");
    }
    drop((initiator, terminator));
}
