//! The macros of shmkit. Use them as `#[shmkit::main]` and `#[derive(shmkit::Element)]`.

mod element;
mod guard;

use proc_macro::TokenStream;

/// Put it on `fn main` of a program that starts processes.
///
/// * A process that this program started as a child runs its own function instead of `main`. (With glibc it has been entered
///   before `main` already; elsewhere this is what enters it.)
/// * If `main` returns an `Err`, its text goes to stderr and the exit code is 1.
/// * At the end of `main`, daemons are terminated, all other children are waited for, and the segments are left.
///
/// `main` may return whatever Rust allows; `()` and `Result<(), E>` with an `E` that can be displayed are usual.
///
/// # Examples
/// ```
/// use shmkit::Process;
///
/// fn greet(whom: String) {
///     println!("hello, {whom}");
/// }
///
/// #[shmkit::main]
/// fn main() -> shmkit::Result<()> {
///     Process::new(greet).args(("world".to_owned(),)).start()?.join()?;
///     Ok(())
/// }
/// ```
#[proc_macro_attribute]
pub fn main(arguments: TokenStream, item: TokenStream) -> TokenStream {
    guard::expand(arguments.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes a struct an element type: one that may lie in shared memory and be seen by other programs and languages.
///
/// The struct must be `#[repr(C)]`, with named fields that are elements themselves, and `Pod` (derive `bytemuck`'s `Pod` and
/// `Zeroable`). Its name for users is the struct's; `#[element(name = "…")]` gives it another one. Renaming a field or
/// moving it makes another type; renaming the struct does not.
///
/// # Examples
/// ```
/// use shmkit::bytemuck::{Pod, Zeroable};
/// use shmkit::Element;
///
/// #[derive(Clone, Copy, Pod, Zeroable, Element)]
/// #[bytemuck(crate = "shmkit::bytemuck")]
/// #[element(name = "particle")]
/// #[repr(C)]
/// struct Particle {
///     position: [f64; 3],
///     charge: i32,
///     species: u32,
/// }
///
/// assert_eq!(Particle::NAME, "particle");
/// assert_eq!(Particle::FORMAT.as_str(), "T{(3)<d:position:<i:charge:<I:species:}");
/// ```
///
/// An enum is refused, and so is a struct whose layout Rust may choose:
/// ```compile_fail
/// #[derive(Clone, Copy, shmkit::Element)]
/// #[repr(C)]
/// enum Colour {
///     Red,
/// }
/// ```
///
/// ```compile_fail
/// #[derive(Clone, Copy, shmkit::bytemuck::Pod, shmkit::bytemuck::Zeroable, shmkit::Element)]
/// #[bytemuck(crate = "shmkit::bytemuck")]
/// struct Particle {
///     position: [f64; 3],
/// }
/// ```
#[proc_macro_derive(Element, attributes(element))]
pub fn element(item: TokenStream) -> TokenStream {
    element::expand(item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
