//! The spawner: what this process knows of its children, and the one thread that watches them until they are reaped.
//!
//! The thread starts those that may ask to be killed with their parent, and mean the parent's *thread*: this one lives as long as
//! the process. The fork server is such a child, and its copies are the same thread's children, whoever asked for them: so any
//! thread asks the server itself.
//!
//! A child that ends makes its process descriptor readable. So its end is known at once, to whoever joins it, or else to the
//! spawner's thread: the child is reaped, what it left in the segments is repaired and its waiters are woken within moments.
//!
//! ```text
//! start      fork server: ask it             others: a request, and a ring of the bell → the thread starts it
//!            the arguments and the record are kept, the thread watches the descriptor
//! bell       a child has read its arguments → they are dropped
//! join       take the descriptor from the thread, watch it; at a time-out give it back
//! descriptor a child has ended → reap, recover, read its message, drop the record, tell who joins
//! ```

use super::builder::{self, OnEnd};
use super::child::{ExitStatus, Inner, Process};
use super::copied;
use super::current::Child;
use super::entry::{self, Greeting};
use super::forkserver::{Failure, Server};
use super::interrupts;
use super::method::StartMethod;
use super::options::Options;
use super::record::Record;
use crate::error::{ProcessError, Result};
use crate::segment::{Segment, known, locked, locked_unforked};
use crate::sys::SysError;
use crate::sys::pidfd::{self, Ended};
use crate::sys::spawn::{self, Plan};
use crate::sys::watch::{BELL, Bell, Watch};
use std::any::Any;
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
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
    /// What the child must know to find its record.
    pub greeting: Greeting,
    pub options: Options,
    /// Standard input, output and error, where they are not the usual ones.
    pub stdio: [Option<OwnedFd>; 3],
    /// The segment whose descriptor the child inherits.
    pub session: Segment,
    pub record: Record,
    /// The arguments, which keep alive what they name until the child has references of its own; `None` if nothing is lost with
    /// them.
    pub arguments: Option<Box<dyn Any + Send>>,
    pub on_end: Option<OnEnd>,
}

/// What the spawner's thread is asked for.
enum Order {
    Spawn(Box<Request>, Plan, SyncSender<Result<Arc<Inner>, SysError>>),
    Fork(Box<Request>, copied::Body, SyncSender<Result<Arc<Inner>, SysError>>),
    StartServer(Plan, Segment, SyncSender<Result<Server, SysError>>),
}

/// What all threads of a process share.
struct Spawner {
    /// The process it runs in: a forked child has its own.
    owner: u32,
    bell: Bell,
    watch: Watch,
    orders: Sender<Order>,
    table: Mutex<Table>,
    server: Mutex<Option<Server>>,
}

/// The children that are not reaped, and those that are not repaired.
#[derive(Default)]
struct Table {
    watched: HashMap<u64, Watched>,
    unburied: Vec<Unburied>,
    /// Children whose descriptors the thread has no room to watch: it looks again and again.
    unwatched: Vec<u64>,
    /// The thread is gone.
    is_closed: bool,
}

static SPAWNER: Mutex<Option<Arc<Spawner>>> = Mutex::new(None);

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
pub(super) fn start(request: Request, origin: Origin) -> Result<Process> {
    let name = request.name.clone();
    let failed = |why: String| ProcessError::Start { name: name.clone(), why };
    let refused = |error: SysError| failed(error.to_string());
    let gone = || failed("the thread that starts processes is gone".to_owned());
    let plan = || builder::plan().map_err(|why| failed(why.to_owned()));
    let spawner = Spawner::of_this_process().map_err(refused)?;
    if let Origin::ForkServer = origin {
        let greeting = request.greeting.to_string();
        let mut server = locked(&spawner.server);
        let mut copied = server.as_ref().map_or(Err(Failure::Gone), |server| server.copy(&greeting));
        if let Err(Failure::Gone) = copied {
            // There is none yet, or it has died.
            bury_server(server.take());
            let (reply, answer) = sync_channel(1);
            spawner.order(Order::StartServer(plan()?, request.session.clone(), reply)).ok_or_else(gone)?;
            copied = server.insert(answer.recv().map_err(|_| gone())?.map_err(refused)?).copy(&greeting);
        }
        let pid = copied.map_err(|failure| {
            let why = match failure {
                Failure::Gone => {
                    "the fork server ended before it had started the child; why is on standard error".to_owned()
                }
                Failure::Refused(SysError { errno: libc::EBUSY, .. }) => {
                    "the fork server has several threads: what `set_forkserver_preload` named must leave none running"
                        .to_owned()
                }
                Failure::Refused(error) => return failed(format!("the fork server: {error}")),
            };
            // The next one may be told to load something else.
            bury_server(server.take());
            failed(why)
        })?;
        drop(server);
        return Ok(Process::of_inner(spawner.adopt(pid, request).map_err(refused)?));
    }
    let (reply, answer) = sync_channel(1);
    let request = Box::new(request);
    let order = match origin {
        Origin::Fork(body) => Order::Fork(request, body, reply),
        _ => Order::Spawn(request, plan()?, reply),
    };
    // Nothing is locked: if this process is to be copied, it is not in the copy either.
    spawner.order(order).ok_or_else(gone)?;
    Ok(Process::of_inner(answer.recv().map_err(|_| gone())?.map_err(refused)?))
}

/// Ends the fork server, if there is one: what it has of the segments is repaired when this returns.
pub(super) fn end_server() {
    let Some(spawner) = Spawner::already() else { return };
    let server = locked(&spawner.server).take();
    bury_server(server);
}

/// Ends a fork server, or buries it.
fn bury_server(server: Option<Server>) {
    let Some(pid) = server.map(|server| server.pid()) else { return };
    // The kernel may take a moment longer to let go of its memory; somebody else may be repairing.
    for _ in 0..TRIES {
        if recover(pid) {
            break;
        }
        std::thread::sleep(PATIENCE);
    }
}

/// Number of threads that shmkit itself runs in this process.
pub(super) fn own_threads() -> usize {
    usize::from(Spawner::already().is_some())
        + usize::from(crate::sync::has_bridge())
        + usize::from(interrupts::is_watched())
}

/// The children that have not been reaped, of this process and not of one it was forked from.
pub(super) fn children() -> Vec<Process> {
    let owner = std::process::id();
    let children = locked_unforked(&CHILDREN);
    children.iter().filter(|child| child.owner == owner).cloned().map(Process::of_inner).collect()
}

/// A child that is watched.
struct Watched {
    inner: Arc<Inner>,
    record: Record,
    arguments: Option<Box<dyn Any + Send>>,
    on_end: Option<OnEnd>,
    /// Threads that watch it instead of the spawner's.
    joiners: usize,
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
    fn bury(self) -> Option<Unburied> {
        let is_repaired = recover(self.inner.pid);
        self.after(is_repaired)
    }

    /// As [`Unburied::bury`], after a first try.
    fn after(mut self, is_repaired: bool) -> Option<Unburied> {
        self.tries += 1;
        if (is_repaired || self.tries >= TRIES) && !self.is_told {
            self.is_told = true;
            locked_unforked(&CHILDREN).retain(|child| !Arc::ptr_eq(child, &self.inner));
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

impl Spawner {
    /// The one of this process, launched if there is none yet.
    fn of_this_process() -> Result<Arc<Spawner>, SysError> {
        let mut spawner = locked_unforked(&SPAWNER);
        match &*spawner {
            Some(known) if known.owner == std::process::id() => return Ok(Arc::clone(known)),
            // A forked child: what hangs on it is the parent's.
            Some(_) => std::mem::forget(spawner.take()),
            None => {}
        }
        let launched = Spawner::launch()?;
        *spawner = Some(Arc::clone(&launched));
        Ok(launched)
    }

    /// The one of this process, if it is launched.
    fn already() -> Option<Arc<Spawner>> {
        locked_unforked(&SPAWNER).as_ref().filter(|spawner| spawner.owner == std::process::id()).cloned()
    }

    fn launch() -> Result<Arc<Spawner>, SysError> {
        entry::end_orderly();
        let bell = Bell::new()?;
        let watch = Watch::new(&bell)?;
        let (orders, incoming) = channel();
        let (table, server) = (Mutex::default(), Mutex::default());
        let spawner = Arc::new(Spawner { owner: std::process::id(), bell, watch, orders, table, server });
        let builder = std::thread::Builder::new().name("shmkit-spawner".to_owned());
        let thread = Arc::clone(&spawner);
        spawn::without_signals(|| builder.spawn(move || thread.run(&incoming)))
            .map_err(|error| SysError { call: "clone", errno: error.raw_os_error().unwrap_or(libc::EAGAIN) })?;
        Ok(spawner)
    }

    /// Asks the thread for something; `None` if it is gone.
    fn order(&self, order: Order) -> Option<()> {
        self.orders.send(order).ok()?;
        self.bell.ring();
        Some(())
    }

    // ---- the thread ------------------------------------------------------------------------------------------------

    fn run(self: &Arc<Self>, incoming: &Receiver<Order>) {
        let mut ready = Vec::new();
        loop {
            let timeout = {
                let table = locked(&self.table);
                let unwatched = (!table.unwatched.is_empty()).then_some(LATER);
                table.unburied.iter().map(Unburied::pause).chain(unwatched).min()
            };
            if self.watch.wait(&self.bell, timeout, &mut ready).is_err() {
                return self.give_up();
            }
            while let Ok(order) = incoming.try_recv() {
                match order {
                    Order::Spawn(request, plan, reply) => {
                        let _ = reply.send(self.spawn(*request, &plan));
                    }
                    Order::Fork(request, body, reply) => {
                        let _ = reply.send(self.fork(*request, body));
                    }
                    Order::StartServer(plan, session, reply) => {
                        let _ = reply.send(Server::start(&plan, &session, self.bell.fd()));
                    }
                }
            }
            if ready.contains(&BELL) {
                self.drop_what_is_read();
            }
            let (unburied, unwatched) = {
                let mut table = locked(&self.table);
                (std::mem::take(&mut table.unburied), table.unwatched.clone())
            };
            let rest: Vec<_> = unburied.into_iter().filter_map(Unburied::bury).collect();
            if !rest.is_empty() {
                locked(&self.table).unburied.extend(rest);
            }
            for key in ready.iter().chain(&unwatched) {
                self.settle(*key);
            }
        }
    }

    /// Drops the arguments of all children that have read theirs.
    fn drop_what_is_read(&self) {
        let mut table = locked(&self.table);
        let read = |child: &&mut Watched| child.arguments.is_some() && child.record.has_read();
        let arguments: Vec<_> = table.watched.values_mut().filter(read).map(|child| child.arguments.take()).collect();
        drop(table);
        arguments.into_iter().for_each(discard);
    }

    /// Somebody has closed the descriptors of this thread: nobody shall wait for what it cannot see. The next start has a new
    /// spawner.
    fn give_up(&self) {
        locked_unforked(&SPAWNER).take_if(|spawner| std::ptr::eq(&**spawner, self));
        let (watched, unburied) = {
            let mut table = locked(&self.table);
            table.is_closed = true;
            (std::mem::take(&mut table.watched), std::mem::take(&mut table.unburied))
        };
        let lost = watched.into_values().map(|child| Unburied {
            status: ExitStatus::new(child.inner.name.clone(), Ended::Unknown, None),
            inner: child.inner,
            on_end: child.on_end,
            tries: 0,
            is_told: false,
        });
        for child in lost.chain(unburied) {
            Unburied { tries: TRIES, ..child }.bury();
        }
    }

    fn spawn(self: &Arc<Self>, mut request: Request, plan: &Plan) -> Result<Arc<Inner>, SysError> {
        let greeted = plan.with(entry::VARIABLE, &request.greeting.to_string())?;
        let plan = Plan { stdio: std::mem::take(&mut request.stdio), ..greeted };
        let pid = spawn::itself(&plan, &[request.session.as_fd(), self.bell.fd()])?;
        self.adopt(pid, request)
    }

    /// `body` is given away before who asked goes on: he is the one who drops it.
    fn fork(self: &Arc<Self>, request: Request, body: copied::Body) -> Result<Arc<Inner>, SysError> {
        let Greeting { name, identity, daemon, .. } = &request.greeting;
        let child = Child { name: name.clone(), identity: identity.clone(), daemon: *daemon };
        let pid = copied::copy(&body, &request.record, child, &request.options)?;
        self.adopt(pid, request)
    }

    // ---- any thread ------------------------------------------------------------------------------------------------

    /// A child that was just started: from now on it is watched.
    fn adopt(self: &Arc<Self>, pid: u32, request: Request) -> Result<Arc<Inner>, SysError> {
        let Request { name, daemon, record, arguments, on_end, .. } = request;
        failpoint!("spawn.started");
        // Unique in this process: a handle outlives the spawner that gave it its key.
        static LAST_KEY: AtomicU64 = AtomicU64::new(BELL);
        // Relaxed: only the number matters.
        let key = LAST_KEY.fetch_add(1, Ordering::Relaxed) + 1;
        let pidfd = match pidfd::open(pid) {
            // Another part of the program waits for any child, or the kernel reaps for it: this one has run, and has ended. How,
            // nobody can ask this descriptor.
            Err(SysError { errno: libc::ESRCH, .. }) => Bell::rung()?,
            opened => opened.inspect_err(|_| pidfd::abandon(pid))?,
        };
        // One that has ended already need not wake the thread, unless that is to tell somebody.
        let has_ended = on_end.is_none() && pidfd::has_ended(pidfd.as_fd(), Some(Duration::ZERO)) == Ok(true);
        let joiners = usize::from(has_ended);
        let inner = Arc::new(Inner::new(name, pid, daemon, pidfd, key));
        let mut table = locked(&self.table);
        let watched = match table.is_closed {
            false if has_ended => Ok(()),
            false => self.watch.add(inner.pidfd.as_fd(), key),
            true => Err(SysError { call: "epoll_ctl", errno: libc::EBADF }),
        };
        watched.inspect_err(|_| pidfd::abandon(pid))?;
        locked_unforked(&CHILDREN).push(Arc::clone(&inner));
        table.watched.insert(key, Watched { inner: Arc::clone(&inner), record, arguments, on_end, joiners });
        drop(table);
        if has_ended {
            Joiner { spawner: Arc::clone(self), key }.settle();
        }
        Ok(inner)
    }

    /// If the child `key` has ended, and nobody has seen to it yet: reaps it, repairs what it left, tells its end.
    fn settle(&self, key: u64) {
        let mut table = locked(&self.table);
        let Some(child) = table.watched.get(&key) else { return };
        let Some((ended, peak_rss)) = pidfd::reap(child.inner.pidfd.as_fd()) else { return };
        if child.joiners == 0 {
            self.watch.remove(child.inner.pidfd.as_fd());
        }
        let child = table.watched.remove(&key);
        table.unwatched.retain(|other| *other != key);
        drop(table);
        let Some(Watched { inner, record, arguments, on_end, .. }) = child else { return };
        // Others may wait for what it held: before anything else.
        let is_repaired = recover(inner.pid);
        let status = ExitStatus::new(inner.name.clone(), ended, record.message()).with_peak_rss(peak_rss);
        discard(arguments);
        drop(record);
        let unburied = Unburied { inner, status, on_end, tries: 0, is_told: false }.after(is_repaired);
        let Some(unburied) = unburied else { return };
        let mut table = locked(&self.table);
        if table.is_closed {
            drop(table);
            Unburied { tries: TRIES, ..unburied }.bury();
        } else {
            table.unburied.push(unburied);
            drop(table);
            self.bell.ring();
        }
    }
}

/// A thread that watches a child instead of the spawner's, which then need not be woken for it.
pub(super) struct Joiner {
    spawner: Arc<Spawner>,
    key: u64,
}

impl Joiner {
    /// Takes the child over. `None` if it is being seen to, or if the spawner's thread has to tell somebody of its end.
    pub(super) fn new(child: &Inner) -> Option<Joiner> {
        let spawner = Spawner::already()?;
        let mut table = locked(&spawner.table);
        let watched = table.watched.get_mut(&child.key).filter(|watched| watched.on_end.is_none())?;
        watched.joiners += 1;
        if watched.joiners == 1 {
            spawner.watch.remove(child.pidfd.as_fd());
        }
        drop(table);
        Some(Joiner { spawner, key: child.key })
    }

    /// The child has ended: sees to it, if nobody else does.
    pub(super) fn settle(&self) {
        self.spawner.settle(self.key);
    }
}

impl Drop for Joiner {
    fn drop(&mut self) {
        let mut table = locked(&self.spawner.table);
        let Some(watched) = table.watched.get_mut(&self.key) else { return };
        watched.joiners -= 1;
        if watched.joiners == 0 && self.spawner.watch.add(watched.inner.pidfd.as_fd(), self.key).is_err() {
            table.unwatched.push(self.key);
            drop(table);
            self.spawner.bell.ring();
        }
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
