//! Whether the shards answer: asked once for all who want to know at about the same time. Anybody may
//! ask, and each question interrupts every shard.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::{Inspect, NO_ANSWER};

/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(1);

/// The last answer, for all doors.
pub(super) struct Health {
    inspect: Arc<dyn Inspect>,
    /// As long as it is good.
    last: Mutex<Option<bool>>,
}

impl Health {
    pub(super) fn new(inspect: Arc<dyn Inspect>) -> Arc<Self> {
        Arc::new(Self { inspect, last: Mutex::default() })
    }

    /// Answers `/healthz`.
    pub(super) async fn answer(self: Arc<Self>) -> (StatusCode, &'static str) {
        // A task of its own: whoever asks and goes must not have the next one ask again.
        match tokio::spawn(self.is_healthy()).await {
            Ok(true) => (StatusCode::OK, "ok\n"),
            Ok(false) | Err(_) => (StatusCode::SERVICE_UNAVAILABLE, NO_ANSWER),
        }
    }

    /// Who comes while the shards are asked waits for their answer.
    async fn is_healthy(self: Arc<Self>) -> bool {
        let mut last = self.last.lock().await;
        if let Some(is_healthy) = *last {
            return is_healthy;
        }
        let is_healthy = self.inspect.snapshot().await.is_some();
        *last = Some(is_healthy);
        drop(last);
        tokio::spawn(async move {
            sleep(FRESH).await;
            *self.last.lock().await = None;
        });
        is_healthy
    }
}
