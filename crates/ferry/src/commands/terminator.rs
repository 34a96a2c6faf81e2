//! `ferry terminator`: the web-app that is connected to.

use ferry_app::Role;

use super::webapp;

const EXAMPLES: &str = "\
Examples:
  ferry terminator                         behind a tunnel whose ingress forwards to 127.0.0.1:8000
  ferry terminator --listen 127.0.0.1:8000 --pod terminator-0 --cluster cluster-b

Then, to see what the far side sent:
  curl http://127.0.0.1:8000/output

Logs go to standard output; FERRY_LOG=debug says more, FERRY_LOG_FORMAT=json is for machines.";

/// Run the terminator: the web-app that the initiator connects to, through its tunnel.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    shared: webapp::Shared,
}

/// Runs it until it is asked to stop.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    webapp::run(args.shared, Role::Terminator, 0, None).await
}
