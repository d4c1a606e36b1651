//! What waits for connections, and what is due.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::*;
use crate::signal::{HEARTBEAT, JOIN_DEADLINE, KEEP, RESUME_WINDOW, SILENCE};

/// It stands: only what the tests say passes.
fn clock() -> Now {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    #[expect(clippy::disallowed_methods, reason = "an Instant can be had in no other way")]
    let instant = *START.get_or_init(Instant::now);
    Now { instant, unix_secs: 0 }
}

/// It goes as tokio's, which is paused: it jumps to the next deadline once nothing else is left to do.
fn paused() -> Now {
    Now { instant: tokio::time::Instant::now().into_std(), unix_secs: 0 }
}

fn signaling(outbound_bytes_in_all: usize) -> Shared {
    by(clock, outbound_bytes_in_all)
}

fn by(clock: fn() -> Now, outbound_bytes_in_all: usize) -> Shared {
    let hub = signal::Config { open: true, outbound_bytes_in_all, ..signal::Config::default() };
    let config = Config { hub, ..Config::default() };
    Arc::new(Signaling::new(config, Vec::new(), clock, [7; 32]))
}

/// One that does what is due. It has been waiting for something for a while.
async fn on_time() -> Shared {
    let signaling = by(paused, 0);
    let own = Arc::clone(&signaling);
    tokio::spawn(async move { own.keep_time().await });
    sleep(Duration::from_secs(1)).await;
    signaling
}

fn connect(signaling: &Shared) -> Attachment {
    signaling.connect(Ipv4Addr::LOCALHOST.into(), None).unwrap()
}

/// Queues a text of this many bytes; returns who is closed for it.
fn push(signaling: &Signaling, to: &Attachment, bytes: usize, at: Instant) -> Vec<ConnectionId> {
    let mut state = signaling.lock();
    state.push(to.id, Outbound::Text("x".repeat(bytes).into()), at);
    let closed = std::iter::from_fn(|| state.hub.poll_action()).filter_map(|action| match action {
        Action::Close { connection, reason: CloseReason::Slow, .. } => Some(connection),
        _ => None,
    });
    closed.collect()
}

#[test]
fn where_all_is_full_the_connection_that_most_waits_for_is_closed() {
    let signaling = signaling(1000);
    let now = clock().instant;
    let [small, large, other] = [(); 3].map(|()| connect(&signaling));
    assert_eq!(push(&signaling, &small, 300, now), []);
    assert_eq!(push(&signaling, &large, 600, now), []);
    assert_eq!(push(&signaling, &other, 50, now), []);
    // One message waits for it, and it is not the one to go.
    assert_eq!(push(&signaling, &other, 60, now), [large.id]);
    assert_eq!(signaling.lock().queued_bytes, 410);
    assert_eq!(push(&signaling, &small, 700, now), [small.id], "itself");
    assert_eq!(signaling.lock().queued_bytes, 110);
    assert_eq!((other.pop().is_some(), other.pop().is_some()), (true, true));
    drop((small, large, other));
    assert_eq!(signaling.lock().queued_bytes, 0);
}

#[test]
fn the_message_beyond_what_may_wait_ends_the_connection_and_all_that_waits_is_thrown_away() {
    let now = clock().instant;
    for (messages, bytes) in [(OUTBOUND_MESSAGES, 1), (OUTBOUND_BYTES / 4096, 4096)] {
        let signaling = signaling(0);
        let [full, other] = [(); 2].map(|()| connect(&signaling));
        assert_eq!(push(&signaling, &other, bytes, now), []);
        for _ in 0..messages {
            assert_eq!(push(&signaling, &full, bytes, now), []);
        }
        assert!(full.pop().is_some());
        assert_eq!(push(&signaling, &full, bytes, now), [], "room for one again");
        signaling.lock().push(full.id, Outbound::Text("x".into()), now);
        // What the hub says to that is done.
        signaling.act(|_, _| {});
        assert_eq!(full.end().map(|end| end.reason), Some(CloseReason::Slow), "{messages}");
        assert!(full.pop().is_none());
        assert_eq!(signaling.lock().queued_bytes, bytes, "of the other one");
        assert!(other.end().is_none() && other.pop().is_some());
    }
}

#[test]
fn a_ping_waits_as_a_message_without_bytes() {
    let signaling = signaling(0);
    let now = clock().instant;
    let full = connect(&signaling);
    assert_eq!(push(&signaling, &full, OUTBOUND_BYTES, now), []);
    signaling.lock().push(full.id, Outbound::Ping, now);
    assert!(full.pop().is_some() && matches!(full.pop(), Some(Outbound::Ping)));
    for _ in 0..OUTBOUND_MESSAGES {
        signaling.lock().push(full.id, Outbound::Ping, now);
    }
    assert_eq!(push(&signaling, &full, 1, now), [full.id]);
}

#[test]
fn a_connection_that_takes_nothing_for_too_long_is_closed() {
    let signaling = signaling(0);
    let now = clock().instant;
    let [deaf, slow] = [(); 2].map(|()| connect(&signaling));
    for own in [&deaf, &slow] {
        assert_eq!(push(&signaling, own, 1, now), []);
        assert_eq!(push(&signaling, own, 1, now + UNREAD - Duration::from_secs(1)), []);
    }
    signaling.lock().outboxes[slow.id].first_since = now + UNREAD / 2;
    assert_eq!(push(&signaling, &deaf, 1, now + UNREAD), [deaf.id]);
    assert_eq!(push(&signaling, &slow, 1, now + UNREAD), []);
}

#[tokio::test(start_paused = true)]
async fn who_never_joins_is_told_at_the_deadline() {
    let signaling = on_time().await;
    // Its ping is what is waited for, and then something is due sooner.
    let _joined = joined(&signaling, "alice").await;
    sleep(Duration::from_secs(1)).await;
    let since = paused().instant;
    let attachment = connect(&signaling);
    let end = ended(&attachment).await;
    assert_eq!((end.reason, said(&end.bye)), (CloseReason::NotJoined, "bye not-joined".to_owned()));
    assert_at(since + JOIN_DEADLINE);
    assert_eq!(signaling.counts().hub.connections, 1, "the other one stays");
}

#[tokio::test(start_paused = true)]
async fn who_says_nothing_is_pinged_and_at_last_told() {
    let signaling = on_time().await;
    let attachment = joined(&signaling, "alice").await;
    let since = paused().instant;
    for at in 1..=2 {
        assert!(matches!(next(&attachment).await, Outbound::Ping));
        assert_at(since + HEARTBEAT * at);
    }
    let end = ended(&attachment).await;
    assert_eq!((end.reason, said(&end.bye)), (CloseReason::Silent, "bye silent".to_owned()));
    assert_at(since + SILENCE);
}

/// A pong is a sign of life: it moves the deadline, and not the pings.
#[tokio::test(start_paused = true)]
async fn who_answers_pings_stays_until_it_no_longer_does() {
    let signaling = on_time().await;
    let attachment = joined(&signaling, "alice").await;
    let since = paused().instant;
    let mut heard = since;
    for at in 1..=6 {
        assert!(matches!(next(&attachment).await, Outbound::Ping));
        assert_at(since + HEARTBEAT * at);
        if at <= 4 {
            attachment.handle_control();
            heard = paused().instant;
        }
    }
    assert_eq!(ended(&attachment).await.reason, CloseReason::Silent);
    assert_at(heard + SILENCE);
}

#[tokio::test(start_paused = true)]
async fn the_others_learn_of_a_loss_when_nobody_can_come_back_anymore() {
    let signaling = on_time().await;
    let bob = joined(&signaling, "bob").await;
    let alice = joined(&signaling, "alice").await;
    assert_eq!(text(&bob).await, "peer-joined alice");
    drop(alice);
    let lost = paused().instant;
    // In the meantime it is spoken to, and the answer has its own time.
    sleep(Duration::from_secs(3)).await;
    bob.handle_text(r#"{"type":"x","to":"alice"}"#);
    assert_eq!(text(&bob).await, "error peer-offline alice");
    assert_at(lost + Duration::from_secs(3) + KEEP);
    assert!(matches!(next(&bob).await, Outbound::Ping));
    bob.handle_control();
    assert_eq!(text(&bob).await, "peer-left alice");
    assert_at(lost + RESUME_WINDOW);
    assert_eq!(signaling.counts().hub.lost_peers, 0);
}

async fn joined(signaling: &Shared, id: &str) -> Attachment {
    let attachment = connect(signaling);
    attachment.handle_text(&format!(r#"{{"type":"join","from":"{id}","room":"r"}}"#));
    for kind in ["welcome", "peers"] {
        assert!(text(&attachment).await.starts_with(kind));
    }
    attachment
}

/// What is to be sent next. Longer than for anything that is due it is not waited for.
async fn next(attachment: &Attachment) -> Outbound {
    loop {
        if let Some(item) = attachment.pop() {
            return item;
        }
        let rung = timeout(SILENCE * 2, attachment.bell.send.notified()).await;
        rung.expect("something is to be sent");
    }
}

/// The text to be sent next, as [`said`] has it.
async fn text(attachment: &Attachment) -> String {
    match next(attachment).await {
        Outbound::Text(text) => said(&text),
        Outbound::Ping => panic!("a ping"),
    }
}

/// The type of a message, and the code and the peer in it, where there are such.
fn said(text: &str) -> String {
    let message: Value = serde_json::from_str(text).unwrap();
    let payload = &message["payload"];
    let words = [&message["type"], &payload["code"], &payload["target"], &payload["id"]];
    words.into_iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

async fn ended(attachment: &Attachment) -> End {
    timeout(SILENCE * 2, attachment.bell.end.notified()).await.expect("the hub ends it");
    attachment.end().unwrap()
}

/// Not before, and no later than tokio's timers are coarse.
#[track_caller]
fn assert_at(at: Instant) {
    let now = paused().instant;
    let late = now.checked_duration_since(at);
    let early = at.saturating_duration_since(now);
    assert!(late.is_some_and(|late| late < Duration::from_millis(10)), "{late:?}, early {early:?}");
}
