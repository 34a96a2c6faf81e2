//! `ferry initiator`: the web-app that connects.

use std::path::PathBuf;

use ferry_app::Role;

use super::webapp;

const EXAMPLES: &str = "\
Examples:
  ferry initiator                          next to a tunnel whose egress listens on 127.0.0.1:18001
  ferry initiator --listen 127.0.0.1:8000 --peer ws://127.0.0.1:18001/ws --pod initiator-0 --cluster cluster-a

Then, to send a message and to see what the far side sent:
  curl -H 'content-type: application/json' -d '{\"n\": 1}' 'http://127.0.0.1:8000/trigger?wait=5s'
  curl http://127.0.0.1:8000/output

Logs go to standard output; FERRY_LOG=debug says more, FERRY_LOG_FORMAT=json is for machines.";

/// Run the initiator: the web-app that connects to the terminator, usually through its tunnel.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    shared: webapp::Shared,
    /// Where the terminator's /ws is reached.
    #[arg(long, value_name = "URL", env = "FERRY_PEER", default_value = "ws://127.0.0.1:18001/ws")]
    peer: String,
    /// How many messages to send by itself once the far side is connected; 0 for none.
    #[arg(long, value_name = "MESSAGES", env = "FERRY_AUTO_TRIGGER", default_value_t = 5)]
    auto_trigger: u32,
    /// A file with the token that the terminator's /ws asks for, if it asks for one [default: none is sent].
    #[arg(long, value_name = "FILE", env = "FERRY_PEER_TOKEN_FILE")]
    peer_token_file: Option<PathBuf>,
}

/// Runs it until it is asked to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let peer_token = args.peer_token_file.as_deref().map(webapp::token).transpose()?;
    webapp::run(args.shared, Role::Initiator { peer: args.peer }, args.auto_trigger, peer_token).await
}
