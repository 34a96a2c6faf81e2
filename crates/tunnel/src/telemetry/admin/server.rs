//! The admin endpoint's connections: bounded in number and in time, and only for whoever calls it by a name of this host.

use std::collections::VecDeque;
use std::io;
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
                let (stopping, router) = (shared.clone(), router.clone());
                let serving = async move {
                    tokio::select! {
                        () = stopping.stopping() => {}
                        served = timeout(CONNECTION_AGE, serve_one(stream, router)) => match served {
                            Ok(Ok(())) => {}
                            Ok(Err(error)) => debug!("admin connection ended early: {error}"),
                            Err(_) => debug!("admin connection closed after {CONNECTION_AGE:?}"),
                        }
                    }
                };
                open.push_back(shared.tasks.spawn(serving).abort_handle());
            }
            Err(error) => {
                accept::on_accept_failed(shared, "an admin", &error);
                tokio::time::sleep(ACCEPT_DELAY).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, router: Router) -> io::Result<()> {
    let local = stream.local_addr()?.ip();
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
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    connection.await.map_err(io::Error::other)
}
