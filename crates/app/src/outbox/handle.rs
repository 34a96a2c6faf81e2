//! What a sender of a trigger waits for.

use tokio::sync::oneshot;

use super::Verdict;
use crate::message::MessageId;
use crate::store::StoreError;

/// A message that the outbox has taken.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(super) id: Option<MessageId>,
    pub(super) stored: oneshot::Receiver<Result<MessageId, StoreError>>,
    pub(super) verdict: oneshot::Receiver<Verdict>,
}

impl Accepted {
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

    /// Waits for the far side; without end where nobody will know. Cancel-safe until it has returned.
    pub(crate) async fn verdict(&mut self) -> Verdict {
        match (&mut self.verdict).await {
            Ok(verdict) => verdict,
            Err(_) => std::future::pending().await,
        }
    }
}
