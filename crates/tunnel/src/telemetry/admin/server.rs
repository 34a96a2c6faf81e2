//! The admin endpoint's connections: bounded in number and in time, and only for whoever calls it by a name of this host.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use ferry_host::Hosts;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::shared::Shared;
use crate::transport::accept::{self, ACCEPT_DELAY};

/// How long a client may take for a request's head, and a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last: who takes an answer slowly keeps its place no longer.
const CONNECTION_AGE: Duration = Duration::from_secs(60);

/// How long the answers that are under way when the tunnel stops may take to their end.
const LAST_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// When the connection of a request ends at the latest: an answer without an end of its own ends before.
#[derive(Clone, Copy)]
pub(super) struct ConnectionEnd(pub(super) Instant);

/// Bytes of a request's head.
const MAX_HEAD: usize = 16 * 1024;

/// Takes connections until the tunnel stops. Where `places` are taken the oldest connection makes way: a probe always gets in.
pub(super) async fn serve(shared: &Arc<Shared>, listener: TcpListener, router: Router, places: usize) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = shared.stopping() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                open.retain(|connection| !connection.is_finished());
                if open.len() >= places
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                let serving = serve_one(shared.clone(), stream, router.clone());
                open.push_back(shared.tasks.spawn(serving).abort_handle());
            }
            Err(error) => {
                accept::on_accept_failed(shared, "an admin", &error);
                tokio::time::sleep(ACCEPT_DELAY).await;
            }
        }
    }
}

async fn serve_one(shared: Arc<Shared>, stream: TcpStream, router: Router) {
    let local = match stream.local_addr() {
        Ok(local) => local.ip(),
        Err(error) => return debug!("admin connection lost at once: {error}"),
    };
    let (hosts, inner) = (Hosts::default(), TowerToHyperService::new(router));
    let end = ConnectionEnd(Instant::now() + CONNECTION_AGE);
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(end);
        let judged = hosts.check(request.uri(), request.headers(), local);
        let answer = inner.call(request);
        async move {
            match judged {
                Ok(()) => answer.await,
                Err(foreign) => Ok((StatusCode::FORBIDDEN, format!("{foreign}\n")).into_response()),
            }
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(stream), service)
    );
    let served = tokio::select! {
        served = timeout(CONNECTION_AGE, connection.as_mut()) => served,
        () = shared.stopping() => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER_TIMEOUT, connection).await
        }
    };
    match served {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!("admin connection ended early: {error}"),
        Err(_) => debug!("admin connection closed: its time is over"),
    }
}
