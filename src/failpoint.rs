//! Kill points inside the algorithms, for the crash tests. Without the feature `failpoints` they are nothing.

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    static ANY: AtomicBool = AtomicBool::new(false);
    static ARMED: Mutex<Option<(String, u32, i32)>> = Mutex::new(None);

    fn arm_with(name: &str, nth: u32, signal: i32) {
        *ARMED.lock().unwrap() = Some((name.to_owned(), nth, signal));
        ANY.store(true, Ordering::Release);
    }

    /// Kills this process with SIGKILL at the `nth` (from 1) passage of the kill point `name`.
    pub fn arm(name: &str, nth: u32) {
        arm_with(name, nth, libc::SIGKILL);
    }

    /// As [`arm`], with the kill point and the number that an environment variable has, if it is there: `NAME,NTH`.
    pub(crate) fn arm_by(variable: &str) {
        if let Some((name, nth)) =
            crate::process::environment(variable).as_deref().and_then(|text| text.split_once(','))
        {
            arm(name, nth.parse().expect("a number"));
        }
    }

    /// Stops this process with SIGSTOP at the `nth` (from 1) passage of the kill point `name`.
    pub fn stop(name: &str, nth: u32) {
        arm_with(name, nth, libc::SIGSTOP);
    }

    #[inline(never)]
    pub(crate) fn pass(name: &str) {
        if !ANY.load(Ordering::Acquire) {
            return;
        }
        let mut armed = ARMED.lock().unwrap();
        let Some((wanted, left, signal)) = armed.as_mut() else { return };
        if wanted == name {
            *left = left.saturating_sub(1);
            if *left == 0 {
                let signal = *signal;
                // Once only: a stopped process goes on some time.
                *armed = None;
                drop(armed);
                // SAFETY: raise has no preconditions.
                unsafe { libc::raise(signal) };
            }
        }
    }
}

#[cfg(feature = "failpoints")]
pub use armed::{arm, stop};
#[cfg(feature = "failpoints")]
pub(crate) use armed::{arm_by, pass};

/// Names a step at which a crash test may kill the process.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($name);
    };
}
