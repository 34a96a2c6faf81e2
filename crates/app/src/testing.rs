//! What unit tests of several modules need.

use std::sync::Arc;

use crate::access::Access;
use crate::app::{App, End};
use crate::committer;
use crate::hooks::Hooks;
use crate::message::Location;
use crate::outbox::Limits;
use crate::output::{Output, StoredOutput};
use crate::sites::Sites;
use crate::store::Store;

/// A web-app without listener and tasks, but with a committer and a store in memory. Must be called within a runtime.
pub(crate) fn bare_app(end: End, hooks: impl Hooks) -> Arc<App> {
    let (store, state) = Store::in_memory();
    let location = Location { pod: "p".into(), cluster: "c".into() };
    let sites = Sites::new(state.sites, Limits::for_hop(&location.hop()));
    let output = Output::new(10, StoredOutput::default(), &[]);
    let app = Arc::new(App::new(end, location, Arc::new(hooks), Access::default(), sites, output));
    tokio::spawn(committer::run(app.clone(), store, None));
    app
}
