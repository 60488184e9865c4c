//! The spawner: the one thread that starts all children of this process and watches them until they are reaped.
//!
//! It starts them because a child can ask to be killed with its parent, and means the parent's *thread*: this one lives as
//! long as the process. It watches their process descriptors, so that a death is known at once: the child is reaped, what it
//! left in the segments is repaired and its waiters are woken within moments.
//!
//! ```text
//! start      a request, and a ring of the bell → the child is started; its arguments and its record are kept
//! bell       a child has read its arguments → they are dropped
//! descriptor a child has ended → reap, recover, read its message, drop the record, tell who joins
//! ```

use super::builder::OnEnd;
use super::child::{ExitStatus, Inner, Process};
use super::copied;
use super::current::Child;
use super::entry;
use super::forkserver::{Failure, Server};
use super::interrupts;
use super::method::StartMethod;
use super::options::Options;
use super::record::Record;
use crate::error::{ProcessError, Result};
use crate::segment::{Segment, known, locked};
use crate::sys::SysError;
use crate::sys::pidfd::{self, Ended};
use crate::sys::spawn::{self, Plan};
use crate::sys::watch::{BELL, Bell, Watch};
use std::any::Any;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Where a child comes from.
pub(super) enum Origin {
    Spawn,
    ForkServer,
    /// A copy of this process, and what it does.
    Fork(copied::Body),
}

impl From<StartMethod> for Origin {
    fn from(method: StartMethod) -> Origin {
        match method {
            StartMethod::Spawn => Origin::Spawn,
            StartMethod::ForkServer => Origin::ForkServer,
        }
    }
}

/// A child to be started.
pub(super) struct Request {
    pub name: String,
    pub daemon: bool,
    pub origin: Origin,
    /// What the child must know to find its record.
    pub greeting: entry::Greeting,
    pub options: Options,
    pub plan: Plan,
    /// The segment whose descriptor the child inherits.
    pub session: Segment,
    pub record: Record,
    /// The arguments, which keep alive what they name until the child has references of its own.
    pub arguments: Box<dyn Any + Send>,
    pub on_end: Option<OnEnd>,
}

/// What the spawner is asked for.
enum Order {
    Start(Box<Request>, SyncSender<Result<Arc<Inner>, String>>),
    /// The fork server is to end: this process does.
    EndServer(SyncSender<()>),
}

/// The spawner as other threads see it.
struct Spawner {
    /// The process it runs in: a forked child has its own.
    owner: u32,
    bell: Arc<Bell>,
    orders: Sender<Order>,
}

static SPAWNER: Mutex<Option<Spawner>> = Mutex::new(None);

/// The children that have not been reaped.
static CHILDREN: Mutex<Vec<Arc<Inner>>> = Mutex::new(Vec::new());

/// When the repair of a dead child is tried again the first time, while somebody else holds the recovery lock, as he does for a
/// moment; the time doubles up to [`PATIENCE`].
const FIRST_PATIENCE: Duration = Duration::from_micros(200);
/// When it is tried again after the first few times.
const PATIENCE: Duration = Duration::from_millis(5);
/// How often, before its end is told although it is not repaired: he who holds the lock may be stopped.
const TRIES: u32 = 45;
/// When it is tried again after that.
const LATER: Duration = Duration::from_millis(100);
/// How often in all. Its number may be another process's by then, and whoever comes by what is left repairs it.
const ALL_TRIES: u32 = TRIES + 600;

/// Starts a child.
pub(super) fn start(request: Request) -> Result<Process> {
    let name = request.name.clone();
    let refused = |why: String| ProcessError::Start { name: name.clone(), why };
    let gone =
        || ProcessError::Start { name: name.clone(), why: "the thread that starts processes is gone".to_owned() };
    let (reply, answer) = sync_channel(1);
    let (orders, bell) = {
        let mut spawner = locked(&SPAWNER);
        if spawner.as_ref().is_none_or(|spawner| spawner.owner != std::process::id()) {
            *spawner = Some(launch().map_err(|error| refused(error.to_string()))?);
        }
        let spawner = spawner.as_ref().expect("just launched");
        (spawner.orders.clone(), Arc::clone(&spawner.bell))
    };
    // Without the lock: if this process is to be copied, nothing is locked in the copy.
    orders.send(Order::Start(Box::new(request), reply)).map_err(|_| gone())?;
    bell.ring();
    Ok(Process::of_inner(answer.recv().map_err(|_| gone())?.map_err(refused)?))
}

/// Ends the fork server, if there is one: what it has of the segments is repaired when this returns.
pub(super) fn end_server() {
    let (reply, answer) = sync_channel(1);
    let owner = std::process::id();
    let spawner = locked(&SPAWNER);
    let Some(Spawner { bell, orders, .. }) = spawner.as_ref().filter(|spawner| spawner.owner == owner) else { return };
    if orders.send(Order::EndServer(reply)).is_ok() {
        bell.ring();
        drop(spawner);
        // An error is the end of the spawner, and so of the server.
        let _ = answer.recv();
    }
}

/// Number of threads that shmkit itself runs in this process.
pub(super) fn own_threads() -> usize {
    usize::from(locked(&SPAWNER).as_ref().is_some_and(|spawner| spawner.owner == std::process::id()))
        + usize::from(crate::sync::has_bridge())
        + usize::from(interrupts::is_watched())
}

/// The children that have not been reaped, of this process and not of one it was forked from.
pub(super) fn children() -> Vec<Process> {
    let owner = std::process::id();
    locked(&CHILDREN).iter().filter(|child| child.owner == owner).cloned().map(Process::of_inner).collect()
}

fn launch() -> Result<Spawner, SysError> {
    entry::end_orderly();
    let bell = Arc::new(Bell::new()?);
    let watch = Watch::new(&bell)?;
    let (orders, incoming) = channel();
    let worker = Worker {
        bell: Arc::clone(&bell),
        watch,
        incoming,
        watched: HashMap::new(),
        next_key: 1,
        unburied: Vec::new(),
        server: None,
    };
    let builder = std::thread::Builder::new().name("shmkit-spawner".to_owned());
    spawn::without_signals(|| builder.spawn(move || worker.run()))
        .map_err(|error| SysError { call: "clone", errno: error.raw_os_error().unwrap_or(libc::EAGAIN) })?;
    Ok(Spawner { owner: std::process::id(), bell, orders })
}

/// A child that is watched.
struct Watched {
    inner: Arc<Inner>,
    record: Record,
    arguments: Option<Box<dyn Any + Send>>,
    on_end: Option<OnEnd>,
}

/// What the parent has of a child that has ended.
struct Left {
    record: Record,
    arguments: Option<Box<dyn Any + Send>>,
    on_end: Option<OnEnd>,
}

struct Worker {
    bell: Arc<Bell>,
    watch: Watch,
    incoming: Receiver<Order>,
    watched: HashMap<u64, Watched>,
    next_key: u64,
    unburied: Vec<Unburied>,
    server: Option<Server>,
}

/// A reaped child that is not repaired yet: somebody else holds the recovery lock.
struct Unburied {
    inner: Arc<Inner>,
    status: ExitStatus,
    on_end: Option<OnEnd>,
    tries: u32,
    is_told: bool,
}

impl Unburied {
    /// Repairs it if that can be done now, and tells its end then, or after enough tries. `Some` if it is still not repaired.
    fn bury(mut self) -> Option<Unburied> {
        self.tries += 1;
        let is_repaired = recover(self.inner.pid);
        if (is_repaired || self.tries >= TRIES) && !self.is_told {
            self.is_told = true;
            locked(&CHILDREN).retain(|child| !Arc::ptr_eq(child, &self.inner));
            self.inner.set_end(self.status.clone());
            if let Some(told) = self.on_end.take() {
                told(&self.status);
            }
        }
        (!is_repaired && self.tries < ALL_TRIES).then_some(self)
    }

    /// When to try again.
    fn pause(&self) -> Duration {
        if self.is_told {
            return LATER;
        }
        (FIRST_PATIENCE * (1 << self.tries.saturating_sub(1).min(8))).min(PATIENCE)
    }
}

impl Worker {
    fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            let timeout = self.unburied.iter().map(Unburied::pause).min();
            if self.watch.wait(&self.bell, timeout, &mut ready).is_err() {
                return self.give_up();
            }
            while let Ok(order) = self.incoming.try_recv() {
                match order {
                    Order::Start(request, reply) => {
                        let started = self.start(*request);
                        let _ = reply.send(started);
                    }
                    Order::EndServer(reply) => {
                        self.end_server();
                        let _ = reply.send(());
                    }
                }
            }
            if ready.contains(&BELL) {
                for child in self.watched.values_mut() {
                    if child.arguments.is_some() && child.record.has_read() {
                        discard(child.arguments.take());
                    }
                }
            }
            self.unburied = std::mem::take(&mut self.unburied).into_iter().filter_map(Unburied::bury).collect();
            for key in &ready {
                self.look_at(*key);
            }
        }
    }

    /// Somebody has closed the descriptors of this thread: nobody shall wait for what it cannot see. The next start has a new
    /// spawner.
    fn give_up(self) {
        locked(&SPAWNER).take_if(|spawner| Arc::ptr_eq(&spawner.bell, &self.bell));
        let lost = self.watched.into_values().map(|child| Unburied {
            status: ExitStatus::new(child.inner.name.clone(), Ended::Unknown, None),
            inner: child.inner,
            on_end: child.on_end,
            tries: TRIES,
            is_told: false,
        });
        for child in lost.chain(self.unburied) {
            Unburied { tries: TRIES, ..child }.bury();
        }
    }

    /// The child, or why there is none.
    fn start(&mut self, request: Request) -> Result<Arc<Inner>, String> {
        let text = |error: SysError| error.to_string();
        let Request { name, daemon, origin, greeting, options, plan, session, record, arguments, on_end } = request;
        let pid = match origin {
            Origin::Spawn => {
                let greeted = plan.with(entry::VARIABLE, &greeting.to_string()).map_err(text)?;
                let plan = Plan { stdio: plan.stdio, ..greeted };
                spawn::itself(&plan, &[session.as_fd(), self.bell.fd()]).map_err(text)?
            }
            Origin::ForkServer => self.copy(&greeting.to_string(), &plan, &session)?,
            Origin::Fork(body) => {
                let child = Child { name: greeting.name, identity: greeting.identity, daemon };
                copied::copy(&body, &record, child, &options).map_err(text)?
            }
        };
        failpoint!("spawn.started");
        let key = self.next_key;
        let pidfd = match pidfd::open(pid) {
            // Another part of the program waits for any child, or the kernel reaps for it: this one has run, and has ended.
            Err(SysError { errno: libc::ESRCH, .. }) => {
                let sentinel = Bell::rung().map_err(text)?;
                let inner = Arc::new(Inner::new(name, pid, daemon, sentinel));
                self.ended(
                    Arc::clone(&inner),
                    Ended::Unknown,
                    None,
                    Left { record, arguments: Some(arguments), on_end },
                );
                return Ok(inner);
            }
            opened => opened,
        };
        let watched = pidfd.and_then(|pidfd| self.watch.add(pidfd.as_fd(), key).map(|()| pidfd));
        let pidfd = watched.inspect_err(|_| pidfd::abandon(pid)).map_err(text)?;
        let inner = Arc::new(Inner::new(name, pid, daemon, pidfd));
        locked(&CHILDREN).push(Arc::clone(&inner));
        self.next_key += 1;
        self.watched.insert(key, Watched { inner: Arc::clone(&inner), record, arguments: Some(arguments), on_end });
        Ok(inner)
    }

    /// Has the fork server start a child; starts a server if there is none, or if it has died.
    fn copy(&mut self, greeting: &str, plan: &Plan, session: &Segment) -> Result<u32, String> {
        let mut copied = self.server.as_ref().map_or(Err(Failure::Gone), |server| server.copy(greeting));
        if matches!(copied, Err(Failure::Gone)) {
            self.end_server();
            let started = Server::start(plan, session, self.bell.fd()).map_err(|error| error.to_string())?;
            copied = self.server.insert(started).copy(greeting);
        }
        copied.map_err(|failure| match failure {
            Failure::Gone => {
                self.end_server();
                "the fork server ended before it had started the child; why is on standard error".to_owned()
            }
            Failure::Refused(SysError { errno: libc::EBUSY, .. }) => {
                // The next one may be told to load something else.
                self.end_server();
                "the fork server has several threads: what `set_forkserver_preload` named must leave none running"
                    .to_owned()
            }
            Failure::Refused(error) => format!("the fork server: {error}"),
        })
    }

    /// Ends the server, or buries it.
    fn end_server(&mut self) {
        let Some(pid) = self.server.take().map(|server| server.pid()) else { return };
        // The kernel may take a moment longer to let go of its memory; somebody else may be repairing.
        for _ in 0..TRIES {
            if recover(pid) {
                break;
            }
            std::thread::sleep(PATIENCE);
        }
    }

    fn look_at(&mut self, key: u64) {
        let Some(child) = self.watched.get(&key) else { return };
        // Others may wait for what it held: before anything else.
        recover(child.inner.pid);
        let peak_rss = pidfd::peak_rss(child.inner.pidfd.as_fd());
        let Some(ended) = pidfd::reap(child.inner.pidfd.as_fd()) else { return };
        self.watch.remove(child.inner.pidfd.as_fd());
        let Some(Watched { inner, record, arguments, on_end }) = self.watched.remove(&key) else { return };
        self.ended(inner, ended, peak_rss, Left { record, arguments, on_end });
    }

    /// A child was reaped: repairs what it left, and tells of its end.
    fn ended(&mut self, inner: Arc<Inner>, ended: Ended, peak_rss: Option<u64>, left: Left) {
        let Left { record, arguments, on_end } = left;
        let status = ExitStatus::new(inner.name.clone(), ended, record.message()).with_peak_rss(peak_rss);
        discard(arguments);
        drop(record);
        self.unburied.extend(Unburied { inner, status, on_end, tries: 0, is_told: false }.bury());
    }
}

/// Drops a user's arguments; a panic in there is the user's, and ends nothing here.
fn discard(arguments: Option<Box<dyn Any + Send>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(arguments)));
}

/// Repairs what the child `pid` left in every segment this process knows. False if it must be tried again.
fn recover(pid: u32) -> bool {
    let mut done = true;
    for segment in known::all() {
        done &= segment.recover_process(pid);
    }
    done
}
