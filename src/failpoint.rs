//! Kill points inside the algorithms, for the crash tests. Without the feature `failpoints` they are nothing.

#[cfg(feature = "failpoints")]
mod armed {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    static ANY: AtomicBool = AtomicBool::new(false);
    static ARMED: Mutex<Option<(String, u32)>> = Mutex::new(None);

    /// Kills this process with SIGKILL at the `nth` (from 1) passage of the kill point `name`.
    pub fn arm(name: &str, nth: u32) {
        *ARMED.lock().unwrap() = Some((name.to_owned(), nth));
        ANY.store(true, Ordering::Release);
    }

    #[inline(never)]
    pub(crate) fn pass(name: &str) {
        if !ANY.load(Ordering::Acquire) {
            return;
        }
        let mut armed = ARMED.lock().unwrap();
        if let Some((wanted, left)) = armed.as_mut()
            && wanted == name
        {
            *left -= 1;
            if *left == 0 {
                // SAFETY: raise has no preconditions.
                unsafe { libc::raise(libc::SIGKILL) };
            }
        }
    }
}

#[cfg(feature = "failpoints")]
pub use armed::arm;
#[cfg(feature = "failpoints")]
pub(crate) use armed::pass;

/// Names a step at which a crash test may kill the process.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($name);
    };
}
