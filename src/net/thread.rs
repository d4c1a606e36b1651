//! The thread of a shard: its runtime, its tasks, and the few questions other threads may ask.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::error;

use super::moves::{self, ErrandInbox, Errands};
use super::pace;
use super::post::{Inbox, Post};
use super::shard::Shard;
use super::stream::Speaks;
use super::udp::{self, Listener, Listeners};
use super::work::{Shared, Work};
use super::{BindError, clock, dtls, stream, sys};
use crate::turn::{self, Server, Stats, policy};

/// Questions that may wait for a busy shard; askers beyond wait themselves.
const COMMANDS_MAX: usize = 16;
/// How often to look whether the machine has got other addresses.
const LOOK_AROUND: Duration = Duration::from_secs(10);
/// Ports tried where any port will do.
const FREE_PORT_ATTEMPTS: usize = 16;
/// The most time between two looks at what has expired.
const TICK: Duration = Duration::from_secs(1);

/// Where shards listen. Where a port is 0, the first shard finds one and the others join it.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    /// UDP, and TCP.
    pub(super) all: Vec<SocketAddr>,
    /// TLS only, and DTLS only where it is spoken.
    pub(super) tls: Vec<SocketAddr>,
}

/// What a shard starts with.
pub(super) struct Start {
    pub(super) listening: Listening,
    pub(super) core: turn::Config,
    pub(super) host: policy::Host,
    pub(super) seed: [u8; 32],
    pub(super) shared: Shared,
    pub(super) streams: stream::Settings,
    pub(super) dtls: Option<dtls::Settings>,
    pub(super) post: Post,
    pub(super) inbox: Inbox,
    pub(super) errands: Errands,
    pub(super) errand_inbox: ErrandInbox,
}

enum Command {
    Serve,
    Stats(oneshot::Sender<Stats>),
    Drain(oneshot::Sender<()>),
    Stop,
}

/// The other threads' end.
#[derive(Debug)]
pub(super) struct Handle {
    commands: mpsc::Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    pub(super) async fn stats(&self) -> Option<Stats> {
        let (answer, asked) = oneshot::channel();
        self.commands.send(Command::Stats(answer)).await.ok()?;
        asked.await.ok()
    }

    /// Lets the shard make no new allocations; waits until it makes none.
    pub(super) async fn drain(&self) {
        let (done, asked) = oneshot::channel();
        // Errors mean that the shard is gone.
        let _ = self.commands.send(Command::Drain(done)).await;
        let _ = asked.await;
    }

    /// Lets the shard begin to read. Only when all are bound: as long as sockets join those that
    /// share an address, the kernel may move clients from one to another.
    pub(super) fn serve(&self) {
        // It is the first command, so there is room; an error means that the shard is gone.
        let _ = self.commands.try_send(Command::Serve);
    }

    pub(super) fn is_alive(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Asks the shard to end.
    pub(super) fn stop(&self) {
        // An error means that the shard is gone already.
        let _ = self.commands.blocking_send(Command::Stop);
    }

    /// Waits until the shard has ended. One that panicked has logged it.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

/// Starts the thread; returns when its sockets are bound, and where.
pub(super) fn start(start: Start) -> Result<(Handle, Listening), BindError> {
    let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
    let (bound, binding) = std::sync::mpsc::channel();
    let first = start.listening.all.first().copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    let failed = |error| BindError::Listen { address: first, transport: "udp", error };
    let thread = std::thread::Builder::new()
        .name(format!("shard-{}", start.post.own()))
        .spawn(move || run(start, inbox, &bound))
        .map_err(failed)?;
    let listening = binding.recv().map_err(|_| failed(std::io::ErrorKind::BrokenPipe.into()))??;
    Ok((Handle { commands, thread: Mutex::new(Some(thread)) }, listening))
}

fn run(
    start: Start,
    mut inbox: mpsc::Receiver<Command>,
    bound: &std::sync::mpsc::Sender<Result<Listening, BindError>>,
) {
    sys::sleep_precisely();
    let runtime = match Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .on_thread_park(pace::before_park)
        .build_local(LocalOptions::default())
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let address =
                start.listening.all.first().copied().unwrap_or_else(|| ([0; 4], 0).into());
            let _ = bound.send(Err(BindError::Listen { address, transport: "udp", error }));
            return;
        }
    };
    runtime.block_on(async {
        let (listeners, stream_listeners, listening) =
            match bind(&start.listening, start.dtls.is_some()) {
                Ok(bindings) => bindings,
                Err(error) => {
                    let _ = bound.send(Err(error));
                    return;
                }
            };
        let Start { core, mut host, seed, shared, streams, dtls, post, inbox: mail, .. } = start;
        let Start { errands, errand_inbox, .. } = start;
        host.endpoints.extend(listening.all.iter().chain(&listening.tls));
        let handshakes = stream::handshake_buckets(core.limits.unauthenticated_per_source);
        let server = Server::new(core, host, seed);
        let shard = Shard::new(handshakes, |me| {
            Work::new(server, listeners, dtls, shared, post, errands, me)
        });
        tokio::task::spawn_local(udp::pump_post(Rc::clone(&shard), mail));
        tokio::task::spawn_local(moves::pump_errands(Rc::clone(&shard), errand_inbox));
        let _ = bound.send(Ok(listening));
        let Some(Command::Serve) = inbox.recv().await else { return };
        tokio::task::spawn_local(udp::pump(Rc::clone(&shard)));
        for (listener, speaks) in stream_listeners {
            let shard = Rc::clone(&shard);
            let accepting = stream::accept(shard, listener, speaks, streams.clone());
            tokio::task::spawn_local(accepting);
        }
        serve(&shard, inbox).await;
        shard.borrow_mut().shutdown();
    });
}

type Bindings = (Listeners, Vec<(TcpListener, Speaks)>, Listening);

fn bind(wanted: &Listening, dtls: bool) -> Result<Bindings, BindError> {
    let failed = |address, transport| {
        move |error: std::io::Error| BindError::Listen { address, transport, error }
    };
    let mut bound = Listening { all: Vec::new(), tls: Vec::new() };
    let (mut listeners, mut streams) = (Vec::new(), Vec::new());
    for &address in &wanted.all {
        let (listener, stream) = bind_both(address, Speaks::Both)?;
        bound.all.push(listener.address);
        listeners.push(listener);
        streams.push((stream, Speaks::Both));
    }
    for &address in &wanted.tls {
        let stream = if dtls {
            let (listener, stream) = bind_both(address, Speaks::Tls)?;
            listeners.push(listener);
            stream
        } else {
            stream::bind(address).map_err(failed(address, "tls"))?
        };
        bound.tls.push(stream.local_addr().map_err(failed(address, "tls"))?);
        streams.push((stream, Speaks::Tls));
    }
    let address = bound.all.first().copied().unwrap_or_else(|| ([0; 4], 0).into());
    Ok((Listeners::new(listeners).map_err(failed(address, "udp"))?, streams, bound))
}

/// UDP and TCP on the same port. Where any port will do, one that is free for the one may be taken
/// for the other.
fn bind_both(wanted: SocketAddr, speaks: Speaks) -> Result<(Listener, TcpListener), BindError> {
    let (datagrams, connections) = match speaks {
        Speaks::Both => ("udp", "tcp"),
        Speaks::Tls => ("dtls", "tls"),
    };
    let mut attempts = if wanted.port() == 0 { FREE_PORT_ATTEMPTS } else { 1 };
    loop {
        let listener = Listener::bind(wanted, speaks).map_err(|error| BindError::Listen {
            address: wanted,
            transport: datagrams,
            error,
        })?;
        let address = listener.address;
        attempts -= 1;
        match stream::bind(address) {
            Ok(stream) => return Ok((listener, stream)),
            Err(_) if attempts > 0 => {}
            Err(error) => return Err(BindError::Listen { address, transport: connections, error }),
        }
    }
}

/// The end of the tick that begins now.
fn tick() -> Instant {
    Instant::from_std(clock::now().instant) + TICK
}

/// Looks at timers and commands until told to stop, or until nobody is left to tell.
async fn serve(shard: &RefCell<Shard>, mut inbox: mpsc::Receiver<Command>) {
    let mut wake = tick();
    let mut looked = wake;
    loop {
        tokio::select! {
            command = inbox.recv() => match command {
                Some(Command::Stats(answer)) => {
                    let _ = answer.send(shard.borrow().stats());
                }
                Some(Command::Drain(done)) => {
                    shard.borrow_mut().drain();
                    let _ = done.send(());
                }
                Some(Command::Serve) => {}
                Some(Command::Stop) => return,
                None => {
                    error!("a shard lost its supervisor and stops");
                    return;
                }
            },
            () = tokio::time::sleep_until(wake) => {
                let next = shard.borrow_mut().handle_timeout(clock::now()).map(Instant::from_std);
                let latest = tick();
                if latest >= looked + LOOK_AROUND {
                    shard.borrow_mut().look_around();
                    looked = latest;
                }
                wake = next.map_or(latest, |next| next.min(latest));
                // Where more has expired than a turn ends, packets come first.
                tokio::task::yield_now().await;
            }
        }
    }
}
