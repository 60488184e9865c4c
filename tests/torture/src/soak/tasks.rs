//! A pool of the director's, whose workers are killed, too: each task gives its result or says that its worker died, and no
//! more of them fail than workers were killed.

use super::{descriptor, signal};
use crate::operation::{Check, corrupt, lost};
use crate::random::Random;
use shmkit::pool::AsyncResult;
use shmkit::{Error, Pool, TaskError};
use std::time::{Duration, Instant};

/// Tasks under way.
const MOST: usize = 16;

/// What a task gives: a number that follows from its own, and who ran it.
fn answer(number: u64) -> u64 {
    crate::random::mix(&[number, 1])
}

fn work(number: u64) -> (u64, u32) {
    let until = Instant::now() + Duration::from_micros(number % 3000);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    (answer(number), std::process::id())
}

/// The pool and what is known of it.
pub struct Tasks {
    pool: Pool,
    under_way: Vec<(u64, AsyncResult<(u64, u32)>)>,
    /// Who has given a result: those may be killed. A pool gives up when one worker after the other dies before it is ready.
    proven: Vec<u32>,
    sent: u64,
    done: u64,
    failed: u64,
    pub kills: u64,
}

impl Tasks {
    pub fn start() -> shmkit::Result<Tasks> {
        let pool = Pool::builder().workers(2).start()?;
        Ok(Tasks { pool, under_way: Vec::new(), proven: Vec::new(), sent: 0, done: 0, failed: 0, kills: 0 })
    }

    /// Sends tasks, looks at their results, and kills a worker now and then.
    pub fn go_on(&mut self, random: &mut Random) -> Check {
        while self.under_way.len() < MOST {
            let number = random.next();
            self.under_way.push((number, self.pool.apply_async(work, (number,))));
            self.sent += 1;
        }
        self.collect()?;
        if random.once_in(16) && !self.proven.is_empty() {
            let pid = self.proven.swap_remove(random.next() as usize % self.proven.len());
            // Looked at after the descriptor was had: it is the worker's.
            if let Some(process) = descriptor(pid)
                && self.pool.worker_pids().contains(&pid)
                && signal(&process, libc::SIGKILL)
            {
                self.kills += 1;
            }
        }
        Ok(())
    }

    fn collect(&mut self) -> Check {
        for (number, result) in self.under_way.extract_if(.., |(_, result)| result.is_ready()) {
            match { result }.get() {
                Ok((found, pid)) if found == answer(number) => {
                    self.done += 1;
                    if !self.proven.contains(&pid) {
                        self.proven.push(pid);
                    }
                }
                Ok((found, _)) => return corrupt(format!("pool: {found} for {number}")),
                Err(Error::Task(TaskError::WorkerDied { .. })) => self.failed += 1,
                Err(error) => return Err(error.into()),
            }
        }
        if self.failed > self.kills {
            return lost(format!("pool: {} tasks failed by {} kills", self.failed, self.kills));
        }
        Ok(())
    }

    /// All tasks come to their end.
    pub fn finish(&mut self) -> Check {
        self.pool.close();
        let until = Instant::now() + Duration::from_secs(20);
        while !self.under_way.is_empty() {
            if Instant::now() > until {
                return crate::operation::hang(format!("{} tasks of the pool do not end", self.under_way.len()));
            }
            self.under_way[0].1.wait_timeout(Duration::from_millis(50));
            self.collect()?;
        }
        self.pool.join()?;
        if self.done + self.failed != self.sent {
            return lost(format!("pool: {} tasks sent, {} done, {} failed", self.sent, self.done, self.failed));
        }
        Ok(())
    }

    pub fn report(&self) {
        let Tasks { sent, done, failed, kills, .. } = self;
        println!("soak: pool: {sent} tasks, {done} results, {kills} workers killed, {failed} tasks failed by that");
    }
}
