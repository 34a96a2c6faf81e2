//! The one place where failures become HTTP answers.

use axum::Json;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use crate::hooks::HookError;
use crate::outbox::OutboxError;
use crate::output::UnknownCursor;
use crate::sites::TargetError;
use crate::trigger::TriggerError;

/// An answer `{"error": …}` that says what is wrong and what to do.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    message: String,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, message: String) -> Self {
        Self { status, message }
    }

    pub(super) fn bad_request(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_a_websocket(rejection: WebSocketUpgradeRejection) -> Self {
        Self::new(rejection.status(), format!("{}; connect with a WebSocket client", rejection.body_text()))
    }

    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The same as a JSON text frame on `/stream`.
    pub(super) fn frame(&self) -> String {
        json!({"error": self.message}).to_string()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({"error": self.message}))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<TriggerError> for ApiError {
    fn from(error: TriggerError) -> Self {
        let status = match &error {
            TriggerError::Hook(HookError::Invalid(_)) => StatusCode::BAD_REQUEST,
            TriggerError::Hook(HookError::Denied(_)) => StatusCode::FORBIDDEN,
            TriggerError::Hook(HookError::Failed(_)) => StatusCode::INTERNAL_SERVER_ERROR,
            TriggerError::Hook(HookError::TooLarge(_)) => StatusCode::PAYLOAD_TOO_LARGE,
            TriggerError::KeyReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            TriggerError::Target(TargetError::Unknown { .. }) | TriggerError::Outbox(OutboxError::Forgotten) => {
                StatusCode::NOT_FOUND
            }
            TriggerError::Target(_) => StatusCode::BAD_REQUEST,
            TriggerError::Outbox(OutboxError::Full) | TriggerError::Store(_) | TriggerError::Draining => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        };
        Self::new(status, error.to_string())
    }
}

impl From<UnknownCursor> for ApiError {
    fn from(error: UnknownCursor) -> Self {
        Self::new(StatusCode::GONE, error.to_string())
    }
}
