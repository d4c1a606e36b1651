//! The threads of a load: opened once, driven many times.

use std::fmt;
use std::io;
use std::net::UdpSocket;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::runtime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;

use crate::net::clock;
use crate::net::sys::{self, RecvBatch};
use crate::stun::{Builder, Class, Method, TransactionId};

use super::churn::churn;
use super::client::Common;
use super::drive::{Departure, drive};
use super::flows::{Flows, Share};
use super::report::Readings;
use super::schedule::{Plan, Schedule};
use super::stamp;
use super::tally::Tally;
use super::{
    BURST_MAX, CLIENTS_MAX, Core, DURATION_MAX, Error, Order, Pattern, RATE_MAX, Report, SIZE_MAX,
    SIZE_MIN, Shape, THREADS_MAX, Target, Transport, Trust, Usage,
};

/// For all threads to be there when a drive starts.
const RUN_UP: Duration = Duration::from_millis(20);
/// How often somebody hears how far it has come.
const TICK: Duration = Duration::from_millis(100);
/// Allocations are renewed before a drive when the last time is this long ago: with
/// [`DURATION_MAX`] that is less than a permission's five minutes.
const RENEW_AFTER: Duration = Duration::from_secs(30);
/// How long to listen for the ICMP that says that nobody else does.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);

/// How far it has come.
#[derive(Clone, Copy, Debug)]
pub enum Progress {
    /// So many clients are on their way.
    Opening(u64),
    /// The drive is so old.
    Driving(Duration),
}

/// Clients that are ready to send. Deletes their allocations when dropped.
pub struct Fleet {
    shape: Shape,
    threads: Vec<Thread>,
    renewed: Instant,
}

struct Thread {
    orders: Option<UnboundedSender<Task>>,
    outcomes: Receiver<Result<Tally, Error>>,
    handle: Option<JoinHandle<()>>,
}

/// What a thread is told to do.
#[derive(Clone, Copy, Debug)]
enum Task {
    Drive(Departure, Plan),
    Renew,
}

impl Fleet {
    /// Opens all clients of `shape` at `target`. `trust` is for TLS only.
    ///
    /// # Errors
    /// Where there is no server, it refuses, or this machine has no room for so many clients.
    pub fn open(
        target: &Target,
        trust: Option<&Trust>,
        mut shape: Shape,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self, Error> {
        shape.clients = shape.clients.clamp(1, CLIENTS_MAX);
        shape.threads.truncate(THREADS_MAX.min(shape.clients as usize));
        if target.transport == Transport::Udp {
            see_whether_refused(target)?;
        }
        let opened = Arc::new(AtomicU64::new(0));
        let threads = shares(shape.clients, shape.threads.len())
            .zip(&shape.threads)
            .map(|(share, &core)| {
                let start = Start {
                    core,
                    share,
                    shape: shape.clone(),
                    target: target.clone(),
                    trust: trust.cloned(),
                    opened: Arc::clone(&opened),
                };
                Thread::start(start)
            })
            .collect::<Result<_, _>>()?;
        let mut fleet = Self { shape, threads, renewed: clock::now().instant };
        fleet.collect(|_| progress(Progress::Opening(opened.load(Ordering::Relaxed))))?;
        Ok(fleet)
    }

    /// Sends what is ordered, within the named limits, and tells what became of it. `server` is
    /// the process to look at.
    ///
    /// # Errors
    /// Where the server has deleted what the clients need, or its process is gone.
    pub fn drive(
        &mut self,
        order: Order,
        server: Option<u32>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Report, Error> {
        let order = bounded(order);
        if clock::now().instant - self.renewed > RENEW_AFTER {
            self.renew()?;
        }
        let server_before = server.map(Usage::of).transpose()?;
        let (own_before, begin) = (Usage::own().ok(), clock::now().instant);
        let plan = Plan {
            rate: order.rate,
            flows: self.shape.clients,
            burst: order.burst,
            duration: order.duration,
            together: order.together,
        };
        self.tell(Task::Drive(
            Departure { order, start: begin + RUN_UP, tag: rand::random() },
            plan,
        ));
        let tally = self.collect(|elapsed| progress(Progress::Driving(elapsed)))?;
        let readings = Readings {
            own: [own_before, Usage::own().ok()],
            server: [server_before, server.map(Usage::of).transpose()?],
            wall: clock::now().instant - begin,
            threads: self.threads.len(),
        };
        Ok(Report::new(&order, tally, readings))
    }

    /// Renews all allocations, with their permissions and channels, as a drive does by itself where the
    /// last time is long ago.
    ///
    /// # Errors
    /// Where the server has deleted some of them.
    pub fn renew(&mut self) -> Result<(), Error> {
        self.tell(Task::Renew);
        self.collect(|_| ())?;
        self.renewed = clock::now().instant;
        Ok(())
    }

    fn tell(&self, task: Task) {
        for orders in self.threads.iter().filter_map(|thread| thread.orders.as_ref()) {
            // A thread that has ended is found out by `collect`.
            let _ = orders.send(task);
        }
    }

    /// Waits for all threads, and calls `tick` meanwhile.
    fn collect(&mut self, mut tick: impl FnMut(Duration)) -> Result<Tally, Error> {
        let begin = clock::now().instant;
        let mut all = Tally::default();
        for thread in &self.threads {
            let outcome = loop {
                match thread.outcomes.recv_timeout(TICK) {
                    Ok(outcome) => break outcome,
                    Err(RecvTimeoutError::Timeout) => tick(clock::now().instant - begin),
                    Err(RecvTimeoutError::Disconnected) => {
                        let error = io::Error::other("it has ended");
                        return Err(Error::Local { what: "thread of the generator", error });
                    }
                }
            };
            all.merge(outcome?);
        }
        Ok(all)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.threads.iter_mut().for_each(|thread| drop(thread.orders.take()));
        for handle in self.threads.iter_mut().filter_map(|thread| thread.handle.take()) {
            // One that panicked has said so.
            let _ = handle.join();
        }
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// What a thread begins with.
struct Start {
    core: Core,
    share: Share,
    shape: Shape,
    target: Target,
    trust: Option<Trust>,
    opened: Arc<AtomicU64>,
}

impl Thread {
    fn start(start: Start) -> Result<Self, Error> {
        let local = |error| Error::Local { what: "thread", error };
        let (orders, tasks) = unbounded_channel();
        let (outcome, outcomes) = mpsc::channel();
        let run = move || {
            if let Err(error) = run(start, tasks, &outcome) {
                // Nobody listens any more when another thread has failed first.
                let _ = outcome.send(Err(error));
            }
        };
        let handle = thread::Builder::new().name("load".to_owned()).spawn(run).map_err(local)?;
        Ok(Self { orders: Some(orders), outcomes, handle: Some(handle) })
    }
}

/// A thread from its first socket to its last.
fn run(
    start: Start,
    tasks: UnboundedReceiver<Task>,
    outcomes: &Sender<Result<Tally, Error>>,
) -> Result<(), Error> {
    if let Core::Pinned(core) = start.core {
        sys::pin(core).map_err(|error| Error::Local { what: "such core", error })?;
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Local { what: "runtime", error })?;
    LocalSet::new().block_on(&runtime, serve(start, tasks, outcomes))
}

async fn serve(
    start: Start,
    mut tasks: UnboundedReceiver<Task>,
    outcomes: &Sender<Result<Tally, Error>>,
) -> Result<(), Error> {
    let Start { share, shape, target, trust, opened, .. } = start;
    let (login, public) = (shape.login.clone(), shape.public);
    let common = Common { target, login, trust, public, batch: RecvBatch::new().into() };
    let flows = Rc::new(Flows::open(shape, share, Rc::new(common), &opened).await?);
    // A fleet that is gone closes the other channel, too.
    let _ = outcomes.send(Ok(Tally::default()));
    while let Some(task) = tasks.recv().await {
        let outcome = match task {
            Task::Renew => flows.renew().await.map(|()| Tally::default()),
            Task::Drive(departure, plan) => Ok(depart(&flows, departure, plan).await),
        };
        let _ = outcomes.send(outcome);
    }
    flows.close().await;
    Ok(())
}

async fn depart(flows: &Rc<Flows>, departure: Departure, plan: Plan) -> Tally {
    let Share { first, flows: own } = flows.share;
    let schedule = Schedule::of(plan, first, own);
    if flows.shape.pattern == Pattern::Allocate {
        let schedule = (plan.rate > 0).then_some(schedule);
        return churn(Rc::clone(flows), schedule, departure).await;
    }
    drive(Rc::clone(flows), schedule, departure).await
}

/// Divides the flows among the threads, as evenly as it goes.
fn shares(flows: u32, threads: usize) -> impl Iterator<Item = Share> {
    let threads = threads.max(1) as u64;
    let start_of = move |thread: u64| (u64::from(flows) * thread / threads) as u32;
    (0..threads).map(move |thread| {
        let first = start_of(thread);
        Share { first, flows: start_of(thread + 1) - first }
    })
}

fn bounded(order: Order) -> Order {
    Order {
        rate: order.rate.min(RATE_MAX),
        burst: order.burst.clamp(1, BURST_MAX),
        size: order.size.clamp(SIZE_MIN, SIZE_MAX),
        duration: order.duration.min(DURATION_MAX),
        ..order
    }
}

/// Only a connected socket hears that nobody listens, and those of the clients are not.
fn see_whether_refused(target: &Target) -> Result<(), Error> {
    let address = target.address;
    let unreachable = |error| Error::Unreachable { address, over: "UDP", error };
    let local = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket =
        UdpSocket::bind(local).map_err(|error| Error::Local { what: "UDP socket", error })?;
    socket.connect(address).map_err(unreachable)?;
    socket.set_read_timeout(Some(REFUSED_WITHIN)).map_err(unreachable)?;
    let mut request = Vec::new();
    let id = TransactionId(rand::random());
    Builder::new(&mut request, Method::Binding, Class::Request, id).finish();
    socket.send(&request).map_err(unreachable)?;
    let mut answer = [0; 1500];
    match socket.recv(&mut answer) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(unreachable(error)),
        Ok(length) if !stamp::is_stun(&answer[..length]) => Err(Error::NotStun { address }),
        // Some servers do not answer Binding requests, and some are slow.
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flow_has_one_thread() {
        for (flows, threads) in [(1, 1), (10, 3), (100_000, 64), (7, 7)] {
            let shares: Vec<_> = shares(flows, threads).collect();
            assert_eq!(shares.len(), threads);
            let mut next = 0;
            for share in shares {
                assert_eq!(share.first, next);
                assert!(share.flows >= 1);
                next += share.flows;
            }
            assert_eq!(next, flows);
        }
    }

    #[test]
    fn no_order_exceeds_the_limits() {
        let order = Order {
            rate: u64::MAX,
            burst: u32::MAX,
            size: 0,
            duration: Duration::MAX,
            together: false,
            one_by_one: false,
        };
        let order = bounded(order);
        assert_eq!((order.rate, order.burst, order.size), (RATE_MAX, BURST_MAX, SIZE_MIN));
        assert_eq!(order.duration, DURATION_MAX);
    }
}
