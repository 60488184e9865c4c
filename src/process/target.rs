//! What a process can run: functions and closures without captures, their arguments and their results.

use crate::segment::object::take_refusal;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Display;
use std::ptr::NonNull;

/// A function or a closure that captures nothing, called with the tuple `A`: up to 12 arguments.
///
/// Arguments are serde values, and shmkit's handles among them. Implemented for every such function; there is nothing to
/// implement by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be called with the arguments `{A}`",
    note = "give what it needs as a tuple: `.args((a, b))`, and one argument as `.args((a,))`"
)]
pub trait Target<A>: Copy + Send + 'static {
    /// What it returns.
    type Outcome;

    /// Calls it.
    fn call(self, arguments: A) -> Self::Outcome;
}

macro_rules! target {
    ($($argument:ident)*) => {
        impl<F, R, $($argument),*> Target<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Copy + Send + 'static,
        {
            type Outcome = R;

            #[allow(non_snake_case, reason = "the types' names serve as the arguments' names")]
            fn call(self, ($($argument,)*): ($($argument,)*)) -> R {
                self($($argument),*)
            }
        }
    };
}
target!();
target!(A);
target!(A B);
target!(A B C);
target!(A B C D);
target!(A B C D E);
target!(A B C D E G);
target!(A B C D E G H);
target!(A B C D E G H I);
target!(A B C D E G H I J);
target!(A B C D E G H I J K);
target!(A B C D E G H I J K L);
target!(A B C D E G H I J K L M);

/// A process as a type: a struct whose fields travel to the child, where [`Run::run`] is called. See
/// [`Process::of`](super::Process::of).
///
/// # Examples
/// ```
/// use serde::{Deserialize, Serialize};
/// use shmkit::{Process, Run};
///
/// #[derive(Serialize, Deserialize)]
/// struct Greeter {
///     whom: String,
/// }
///
/// impl Run for Greeter {
///     type Outcome = Result<(), String>;
///
///     fn run(self) -> Result<(), String> {
///         if self.whom == "world" { Ok(()) } else { Err(format!("who is {}?", self.whom)) }
///     }
/// }
///
/// # fn main() -> shmkit::Result<()> {
/// let greeter = Process::of(Greeter { whom: "world".to_owned() }).start()?;
/// assert_eq!(greeter.name(), "Greeter-1");
/// assert!(greeter.join()?.success());
/// # Ok(())
/// # }
/// ```
pub trait Run: Serialize + DeserializeOwned + Send + 'static {
    /// What it returns: see [`Outcome`].
    type Outcome: Outcome;

    /// What the child does.
    fn run(self) -> Self::Outcome;
}

/// What a process's function may return: nothing, an exit code, or a `Result` whose error becomes exit code 1 and its text the
/// message that [`Process::join`](super::Process::join) gives.
#[diagnostic::on_unimplemented(
    message = "a process's function cannot return `{Self}`",
    note = "it can return `()`, an exit code (`i32` or `u8`), or a `Result` of these whose error is `Display`",
    note = "results go back through what it was given: a queue, a value, an array; or use a `Pool`"
)]
pub trait Outcome: sealed::Sealed {
    /// Exit code and message.
    #[doc(hidden)]
    fn report(self) -> Report;
}

/// How a process ends.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Exit code.
    pub code: i32,
    /// Why, if there is something to say.
    pub message: Option<String>,
}

/// The type of a function that does not return, which cannot be written as `!` yet.
type Never = <fn() -> ! as Returns>::Type;

#[doc(hidden)]
pub trait Returns {
    /// What the function returns.
    type Type;
}

impl<R> Returns for fn() -> R {
    type Type = R;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for i32 {}
    impl Sealed for u8 {}
    impl Sealed for super::Never {}
    impl<T: Sealed, E: std::fmt::Display> Sealed for Result<T, E> {}
}

impl Outcome for () {
    fn report(self) -> Report {
        Report { code: 0, message: None }
    }
}

impl Outcome for i32 {
    fn report(self) -> Report {
        Report { code: self, message: None }
    }
}

impl Outcome for u8 {
    fn report(self) -> Report {
        i32::from(self).report()
    }
}

impl Outcome for Never {
    fn report(self) -> Report {
        self
    }
}

impl<T: Outcome, E: Display> Outcome for Result<T, E> {
    fn report(self) -> Report {
        match self {
            Ok(outcome) => outcome.report(),
            Err(error) => Report { code: 1, message: Some(error.to_string()) },
        }
    }
}

/// The function a child is entered in: reads the arguments, says that it has them, calls the target.
pub(super) type Trampoline = fn(&[u8], &mut dyn FnMut()) -> Report;

/// The trampoline of a target.
pub(super) fn trampoline<F, A>(bytes: &[u8], have_read: &mut dyn FnMut()) -> Report
where
    F: Target<A, Outcome: Outcome>,
    A: DeserializeOwned,
{
    let arguments: A = match postcard::from_bytes(bytes) {
        Ok(arguments) => arguments,
        Err(error) => {
            return Report { code: 1, message: Some(format!("cannot read the arguments: {}", explain(error))) };
        }
    };
    have_read();
    const { assert_no_captures::<F>() };
    // SAFETY: a type without bytes has no invalid ones; a value of it existed in the parent, which gave it away for this, and
    // it is `Copy`, so there may be several.
    let target = unsafe { NonNull::<F>::dangling().read() };
    target.call(arguments).report()
}

/// What arguments failed with: in the words of the handle that was the cause, if one was.
pub(super) fn explain(error: postcard::Error) -> String {
    match error {
        postcard::Error::SerdeSerCustom | postcard::Error::SerdeDeCustom => {
            take_refusal().map_or_else(|| error.to_string(), |refusal| refusal.to_string())
        }
        _ => error.to_string(),
    }
}

/// Refuses, at compile time, a target that would have to travel itself.
pub(crate) const fn assert_no_captures<F>() {
    assert!(
        size_of::<F>() == 0,
        "a process's target must be a function or a closure that captures nothing: pass what it needs with `args`, and name the function itself instead of a `fn` pointer"
    );
}
