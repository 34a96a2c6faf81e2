//! What the sender of a trigger waits for.

use tokio::sync::oneshot;

use super::Verdict;
use crate::message::MessageId;
use crate::store::StoreError;

/// A message that the outbox has accepted.
#[derive(Debug)]
pub(crate) struct MessageHandle {
    pub(super) id: Option<MessageId>,
    pub(super) stored: oneshot::Receiver<Result<MessageId, StoreError>>,
    pub(super) verdict: oneshot::Receiver<Verdict>,
}

impl MessageHandle {
    /// The message's id, if it is known to be stored.
    pub(crate) fn id(&self) -> Option<&MessageId> {
        self.id.as_ref()
    }

    /// Returns the message's id once it is stored. Cancel-safe until it has failed.
    pub(crate) async fn stored(&mut self) -> Result<MessageId, StoreError> {
        if let Some(id) = &self.id {
            return Ok(id.clone());
        }
        let id = (&mut self.stored).await.unwrap_or_else(|_| Err(StoreError::Failed("the web-app ended".into())))?;
        self.id = Some(id.clone());
        Ok(id)
    }

    /// Waits for the far side's verdict, for ever if it will never be known. Cancel-safe until it has returned.
    pub(crate) async fn verdict(&mut self) -> Verdict {
        match (&mut self.verdict).await {
            Ok(verdict) => verdict,
            Err(_) => std::future::pending().await,
        }
    }
}
