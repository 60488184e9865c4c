//! Work on arrays in place, reduction, and [`Executor`]: what code in rayon's style asks for.

use super::{Argument, Pool, Target};
use crate::data::Array;
use crate::element::Element;
use crate::error::Result;
use crate::process::assert_no_captures;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Parts into which an array, or the items of a reduction, are cut for each worker.
const PARTS: usize = 8;

/// The bounds of `parts` parts of `len` elements, none of them empty.
fn parts(len: usize, parts: usize) -> impl Iterator<Item = (usize, usize)> {
    let each = len.div_ceil(parts.max(1)).max(1);
    (0..len.div_ceil(each)).map(move |part| (part * each, ((part + 1) * each).min(len)))
}

impl Pool {
    /// Has workers change an array in place: each call of `function` gets a part of it and the index of that part's first element.
    /// Only the bounds of the parts travel; the elements stay where they are.
    ///
    /// The array's lock is not taken, and nothing is copied: see the safety section.
    ///
    /// # Crash behaviour
    /// A worker that dies leaves its part half changed, and the call fails; with [`PoolBuilder::retries`](super::PoolBuilder::retries)
    /// the part is given to `function` again as it is, which should then be one that does not mind.
    ///
    /// # Errors
    /// As [`Pool::map`].
    ///
    /// # Safety
    /// While this runs nobody else reads or writes the array's elements: no other thread, process or task, by whatever way. After a
    /// [`DeadlineExceeded`](crate::TaskError::DeadlineExceeded) a worker may still be at its part.
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let pool = shmkit::Pool::new(2)?;
    /// let array = shmkit::Array::<u64>::new(1000)?;
    /// let fill = |first: usize, part: &mut [u64]| {
    ///     for (index, element) in (first..).zip(part) {
    ///         *element = (index * index) as u64;
    ///     }
    /// };
    /// // SAFETY: nobody else knows the array.
    /// unsafe { pool.map_array(&array, fill)? };
    /// assert_eq!(array.get(999)?, 998_001);
    /// # Ok(())
    /// # }
    /// ```
    pub unsafe fn map_array<F, T>(&self, array: &Array<T>, function: F) -> Result<()>
    where
        F: Fn(usize, &mut [T]) + Copy + Send + 'static,
        T: Element + Send + 'static,
        Array<T>: Serialize + DeserializeOwned + Send,
    {
        const { assert_no_captures::<F>() };
        let call = move |array: Array<T>, first: u64, end: u64| {
            let (first, end) = (first as usize, end as usize);
            assert!(first <= end && end <= array.len(), "the part is not in the array");
            // SAFETY: inside the array; the parts are disjoint, and the caller of `map_array` keeps all others away.
            let part = unsafe { std::slice::from_raw_parts_mut(array.as_ptr().add(first), end - first) };
            function(first, part);
        };
        let parts = parts(array.len(), PARTS * self.workers());
        self.tasks(call, parts.map(|(first, end)| (array.clone(), first as u64, end as u64))).chunk(1).run()?;
        Ok(())
    }

    /// Calls `function` with each of the items and joins the results, in order, with `reduce`: each worker joins those of its part,
    /// so that one value for each part comes back. `reduce` must be associative. `None` without items.
    ///
    /// # Errors
    /// As [`Pool::map`].
    ///
    /// # Examples
    /// ```
    /// # fn main() -> shmkit::Result<()> {
    /// let pool = shmkit::Pool::new(2)?;
    /// let longest = pool.map_reduce(
    ///     |word: String| word.len(),
    ///     |a: usize, b: usize| a.max(b),
    ///     ["shared", "memory", "segment"].map(str::to_owned),
    /// )?;
    /// assert_eq!(longest, Some(7));
    /// # Ok(())
    /// # }
    /// ```
    pub fn map_reduce<F, G, T, I>(&self, function: F, reduce: G, items: I) -> Result<Option<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        G: Fn(F::Outcome, F::Outcome) -> F::Outcome + Copy + Send + 'static,
        T: Argument,
        I: IntoIterator<Item = T>,
    {
        const { assert_no_captures::<F>() };
        const { assert_no_captures::<G>() };
        let call = move |part: Vec<T>| part.into_iter().map(|item| function.call((item,))).reduce(reduce);
        let items: Vec<T> = items.into_iter().collect();
        let bounds = parts(items.len(), PARTS * self.workers());
        let mut items = items.into_iter();
        let parts: Vec<_> =
            bounds.map(|(first, end)| (items.by_ref().take(end - first).collect::<Vec<T>>(),)).collect();
        Ok(self.tasks(call, parts).chunk(1).run()?.into_iter().flatten().reduce(reduce))
    }
}

/// Where work is done: code that asks for no more than this runs in the worker processes of a [`Pool`], or, with [`Here`], in
/// this thread, and can be given any other executor, such as one on rayon's threads.
///
/// # Examples
/// ```
/// use shmkit::pool::{Executor, Here};
///
/// fn squares(executor: &impl Executor) -> shmkit::Result<Vec<u64>> {
///     executor.map(|x: u64| x * x, (0..10).collect())
/// }
///
/// # fn main() -> shmkit::Result<()> {
/// let pool = shmkit::Pool::new(2)?;
/// assert_eq!(squares(&pool)?, squares(&Here)?);
/// let (sum, text) = pool.join_both(|a: u32| a + 1, 1, |text: String| text.len(), "four".to_owned())?;
/// assert_eq!((sum, text), (2, 4));
/// # Ok(())
/// # }
/// ```
pub trait Executor {
    /// Calls `function` with each of the items; gives the results in order.
    ///
    /// # Errors
    /// What becomes of the first item that fails.
    fn map<F, T>(&self, function: F, items: Vec<T>) -> Result<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument;

    /// Calls `function` with each of the items.
    ///
    /// # Errors
    /// As [`Executor::map`].
    fn for_each<F, T>(&self, function: F, items: Vec<T>) -> Result<()>
    where
        F: Target<(T,), Outcome = ()>,
        T: Argument,
    {
        self.map(function, items).map(drop)
    }

    /// Makes two calls, at the same time if it can, and gives both results: rayon's `join`.
    ///
    /// # Errors
    /// As [`Executor::map`].
    fn join_both<F, T, G, U>(&self, first: F, with: T, second: G, and: U) -> Result<(F::Outcome, G::Outcome)>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
        G: Target<(U,), Outcome: Argument>,
        U: Argument;
}

impl Executor for Pool {
    fn map<F, T>(&self, function: F, items: Vec<T>) -> Result<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
    {
        Pool::map(self, function, items)
    }

    fn join_both<F, T, G, U>(&self, first: F, with: T, second: G, and: U) -> Result<(F::Outcome, G::Outcome)>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
        G: Target<(U,), Outcome: Argument>,
        U: Argument,
    {
        let mut first = self.apply_async(first, (with,));
        let second = self.apply(second, (and,));
        Ok((first.get()?, second?))
    }
}

/// The executor that does everything in the thread that asks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Here;

impl Executor for Here {
    fn map<F, T>(&self, function: F, items: Vec<T>) -> Result<Vec<F::Outcome>>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
    {
        Ok(items.into_iter().map(|item| function.call((item,))).collect())
    }

    fn join_both<F, T, G, U>(&self, first: F, with: T, second: G, and: U) -> Result<(F::Outcome, G::Outcome)>
    where
        F: Target<(T,), Outcome: Argument>,
        T: Argument,
        G: Target<(U,), Outcome: Argument>,
        U: Argument,
    {
        Ok((first.call((with,)), second.call((and,))))
    }
}
